"""What is in a ledger and its store, and where else they may come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.artifacts import ArtifactStore
from ratchet.ledger import Ledger
from ratchet.ledger.tables import Base, CheckpointRow
from sqlalchemy import select

from tests.support.story import checkpoint_id

Snapshot = dict[str, list[tuple[Any, ...]]]


def publish(store: ArtifactStore, text: str) -> str:
    return store.publish_lines([text] * 50, "batch", {}).id


def elsewhere(tmp_path: Path) -> tuple[str, ArtifactStore]:
    return f"sqlite:///{tmp_path / 'there' / 'ledger.db'}", ArtifactStore((tmp_path / "there" / "artifacts").as_uri())


def rows(ledger: Ledger) -> Snapshot:
    with ledger.read() as session:
        return {
            table.name: sorted((tuple(row) for row in session.execute(select(table))), key=repr)
            for table in Base.metadata.sorted_tables
        }


def rows_at(url: str) -> Snapshot:
    ledger = Ledger(url)
    try:
        return rows(ledger)
    finally:
        ledger.close()


def add_checkpoint(ledger: Ledger, ordinal: int, artifact: str) -> None:
    with ledger.write() as tx:
        tx.session.add(
            CheckpointRow(
                id=checkpoint_id(ordinal),
                ordinal=ordinal,
                parent_id=checkpoint_id(ordinal - 1),
                batch_id=None,
                step=1,
                tokens=1,
                weights="f" * 64,
                artifact=artifact,
                state_artifact=None,
                size_bytes=1,
                train_loss=None,
                tokens_per_s=None,
                created_at=tx.now,
            )
        )


def retire(ledger: Ledger, store: ArtifactStore, ordinal: int) -> None:
    """As retention does it: the ledger first, then the bytes."""
    with ledger.write() as tx:
        row = tx.session.get_one(CheckpointRow, checkpoint_id(ordinal))
        row.state, artifact = "deleted", row.artifact
    store.delete(artifact)


def damage(folder: Path, artifact: str) -> Path:
    file = folder / artifact / "rows.jsonl"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return file
