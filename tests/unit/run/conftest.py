"""A ledger in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate

from tests.support.story import write_story


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """With the story in it."""
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(made)
    with made.write() as tx:
        write_story(tx)
    yield made
    made.close()
