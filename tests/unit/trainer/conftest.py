"""A tiny base model, a file of sums, and the engine, for the tests of the trainer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a forked child waits for ever for the threads that it has not inherited
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from ratchet.inference.tiny import build_tiny_model
from ratchet.settings.training import TrainerConfig
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from trainer.config import parse_config
from trainer.core import TrainerEngine, TrainingResult
from trainer.monitoring import TrainingStatusWriter

from tests.support.examples import sums, write_examples


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def sum_file(tmp_path: Path) -> Path:
    """A hundred sums of two to six terms: rows of unequal length."""
    return write_examples(tmp_path / "sums.jsonl", sums(100, longest=6))


@pytest.fixture
def graded_file(tmp_path: Path) -> Path:
    """A hundred sums that their family grades."""
    family = registry.get("chain_sum")
    return write_examples(tmp_path / "graded.jsonl", [to_example(family.generate(1, n), "test") for n in range(100)])


@pytest.fixture
def configure(base_model: Path, tmp_path: Path) -> Callable[..., TrainerConfig]:
    """A configuration from a file, a name for the run's folder, and settings as ``section__field``."""

    def make(data: Path, run: str = "run", /, **settings: Any) -> TrainerConfig:
        sections: dict[str, dict[str, Any]] = {
            "model": {"path": str(base_model)},
            "hyperparams": {"batch_size": 8, "warmup_steps": 2},
            "data": {"dataset_path": data},
            "output": {"output_dir": tmp_path / run},
        }
        for name, value in settings.items():
            section, _, field = name.partition("__")
            sections.setdefault(section, {})[field] = value
        return parse_config(sections)

    return make


@pytest.fixture
def train(configure: Callable[..., TrainerConfig], tmp_path: Path) -> Callable[..., TrainingResult]:
    """Run the engine. ``after`` is the run to resume; ``stop_after`` steps asks for an end."""

    def run(
        data: Path,
        name: str = "run",
        /,
        *,
        after: TrainingResult | None = None,
        stop_after: int | None = None,
        **settings: Any,
    ) -> TrainingResult:
        steps = iter(range(1, 1_000_000))
        if after is not None:
            settings |= {"model__path": after.last_checkpoint_path, "output__resume_from": after.state_path}
        engine = TrainerEngine(
            TrainingStatusWriter(tmp_path / f"{name}.status.json"), should_stop=lambda: next(steps) == stop_after
        )
        return engine.run_job(configure(data, name, **settings))

    return run
