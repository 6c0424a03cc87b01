"""A checkpoint that answers, one with empty answers, and specs for testing's child."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

from tests.support.examples import write_examples
from tests.support.tiny_model import build_tiny_model

from .asking import BATCH, Spec, sums


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide random weights: answers are wrong, but each is another."""
    return build_tiny_model(tmp_path_factory.mktemp("checkpoint") / "model", seed=3, initializer_range=0.3)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untrained base model, whose answers are empty and never end."""
    return build_tiny_model(tmp_path_factory.mktemp("untrained") / "model")


@pytest.fixture
def spec(checkpoint: Path, tmp_path: Path) -> Spec:
    """Two suites of 40 and 20 items, in a work folder of their own."""

    def make(work: str = "work", **fields: Any) -> dict[str, Any]:
        suites = [
            {
                "name": name,
                "version": f"{name}-v1",
                "grader": "chain_sum@1",
                "path": str(write_examples(tmp_path / f"{name}.jsonl", sums(count, level))),
            }
            for name, count, level in (("eval", 40, 2), ("probe", 20, 3))
        ]
        return {
            "checkpoint": str(checkpoint),
            "suites": suites,
            "work_folder": str(tmp_path / work),
            "decoding": {"max_new_tokens": 24},
            "inference": {"batch_size": BATCH},
            **fields,
        }

    return make
