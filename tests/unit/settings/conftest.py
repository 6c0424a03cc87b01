"""A working folder without settings, and an environment without variables of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("RATCHET_")]:
        monkeypatch.delenv(variable)
    return tmp_path
