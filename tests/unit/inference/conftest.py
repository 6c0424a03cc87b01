"""A model with wide random weights: every prompt has a different answer, and some answers end."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from ratchet.inference.local_generator import LocalGenerator

from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="session")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("lively") / "model", seed=3, initializer_range=0.3)


@pytest.fixture
def generator(lively: Path) -> LocalGenerator:
    return LocalGenerator.load(lively)
