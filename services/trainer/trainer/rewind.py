"""Rewind: after a broken checkpoint, a critical regression or a diverging loss, go back to weights that are good."""

from __future__ import annotations

from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.lineage import ancestry, lineage
from ratchet.ledger.tables import BatchRow


def rewind(tx: Transaction, bad_batch_id: str | None = None) -> tuple[str, list[str]]:
    """Send the line back to the champion, with a fresh optimizer; quarantine what was trained on since.

    ``bad_batch_id`` is quarantined in any case. Returns the new head's id and the quarantined batches.
    """
    target = champion(tx.session)
    main = lineage(tx.session)
    batch_ids = _batches_since(tx, main.head_id, target.id)
    if bad_batch_id is not None:
        batch_ids.add(bad_batch_id)
    for batch_id in batch_ids:
        batch = tx.session.get_one(BatchRow, batch_id)
        if batch.state in ("training", "trained", "queued"):
            batch.state, batch.finished_at = "quarantined", tx.now
    main.head_id, main.fresh_optimizer, main.running_batch_id, main.updated_at = target.id, True, None, tx.now
    return target.id, sorted(batch_ids)


def descends_from(tx: Transaction, head_id: str, ancestor_id: str) -> bool:
    """Whether the line at ``head_id`` has passed through ``ancestor_id``."""
    return any(checkpoint.id == ancestor_id for checkpoint in ancestry(tx.session, head_id))


def _batches_since(tx: Transaction, head_id: str, target_id: str) -> set[str]:
    """Batches trained on the way to the head since it parted from the way to ``target_id``."""
    kept = {checkpoint.id for checkpoint in ancestry(tx.session, target_id)}
    left = [checkpoint for checkpoint in ancestry(tx.session, head_id) if checkpoint.id not in kept]
    return {checkpoint.batch_id for checkpoint in left if checkpoint.batch_id is not None}
