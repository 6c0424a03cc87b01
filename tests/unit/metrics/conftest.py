from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.settings import Settings

from tests.support.ledgers import engine, ledger
from tests.support.story import write_story

__all__ = ["engine", "ledger"]


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Defaults; a test may give the section of the suites as the parameter."""
    return Settings(home=tmp_path / "home", suites=getattr(request, "param", {}))


@pytest.fixture
def told(ledger: Ledger) -> Ledger:
    """A ledger with a story in it."""
    with ledger.write() as tx:
        write_story(tx)
    return ledger
