"""Settings of the property tests, and a home for what reads one: empty, or with a ledger that tells a story.

Property tests assert on values, never on wall-clock time, and repeat themselves exactly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate

from tests.support.story import write_story

settings.register_profile("ratchet", deadline=None, derandomize=True, database=None)
settings.load_profile("ratchet")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, in a working folder without a settings file; the environment names it.

    Commands pass their options to worker processes through the environment, so it is put back afterwards.
    """
    before = dict(os.environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RATCHET_CONFIG", raising=False)
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path / "run"))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "140")
    yield tmp_path / "run"
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def empty_ledger(home: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{home / 'ledger.db'}")
    migrate(ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(empty_ledger: Ledger) -> Ledger:
    """The ledger with the story in it."""
    with empty_ledger.write() as tx:
        write_story(tx)
    return empty_ledger
