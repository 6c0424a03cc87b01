"""A working folder without settings, and an environment without variables of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """``--set`` writes into the environment, so that is put back afterwards."""
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("RATCHET_")]:
        del os.environ[variable]
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)
