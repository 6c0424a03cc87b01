from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings

from tests.support.ledgers import engine, ledger, ledger_url

__all__ = ["control", "engine", "ledger", "ledger_url", "settings"]


@pytest.fixture
def control() -> ControlSettings:
    return ControlSettings(lease_s=10.0, max_backoff_s=0.02)


@pytest.fixture
def settings(tmp_path: Path, control: ControlSettings) -> Settings:
    return Settings(home=tmp_path, control=control)
