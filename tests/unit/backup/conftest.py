from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.backup import FinishedBackup, make
from ratchet.backup.backup import KEPT_ARTIFACTS
from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow, WorkerRow
from sqlalchemy import update

from tests.support.ledgers import ledger
from tests.support.stores import store
from tests.support.story import write_story

from .contents import publish

__all__ = ["ledger", "store"]


@pytest.fixture
def engine() -> str:
    """SQLite; tests of both engines override this."""
    return "sqlite"


@pytest.fixture
def told(ledger: Ledger, store: ArtifactStore) -> Ledger:
    """A ledger with a story in it, whose artifacts are in the store."""
    artifact = publish(store, "rows")
    with ledger.write() as tx:
        write_story(tx)
        for column in (*KEPT_ARTIFACTS, CheckpointRow.artifact):
            tx.session.execute(update(column.class_).where(column.is_not(None)).values({column.key: artifact}))
        tx.session.execute(update(WorkerRow).values(state="stopped"))
    return ledger


@pytest.fixture
def made(told: Ledger, store: ArtifactStore, tmp_path: Path) -> FinishedBackup:
    return make(told, store, tmp_path / "backup")
