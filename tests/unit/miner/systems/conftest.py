from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.home import small_home

from .by_heart import WATCHED


@pytest.fixture(autouse=True)
def one_batch_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction batch may follow each generated one, so that a story needs few batches."""
    monkeypatch.setattr("miner.correction_batch.BATCHES_BETWEEN", 1)


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    with small_home(tmp_path / "watched", **WATCHED) as home:
        yield home
