"""Rewind: after a broken checkpoint, a critical regression or a diverging loss, go back to weights that are good."""

from __future__ import annotations

from ratchet.ledger import Transaction
from ratchet.ledger.forks import abandon, branch_of, open_fork
from ratchet.ledger.line import ancestry, champion, line
from ratchet.ledger.tables import Batch, Fork


def rewind(tx: Transaction, bad_batch_id: str | None = None) -> tuple[str, list[str]]:
    """Send the line back to the champion, with a fresh optimizer; quarantine what was trained on since.

    ``bad_batch_id`` is quarantined in any case. A fork that has begun ends with it. Returns the new head's id and the
    quarantined batches.
    """
    fork = open_fork(tx.session)
    if fork is not None and fork.parent_id is not None:
        abandon(tx, fork, "the line has gone back to the champion")
    target = champion(tx.session)
    main = line(tx.session)
    batch_ids = _batches_since(tx, main.head_id, target.id)
    if bad_batch_id is not None:
        batch_ids.add(bad_batch_id)
    for batch_id in batch_ids:
        batch = tx.session.get_one(Batch, batch_id)
        if batch.state in ("training", "trained", "queued"):
            batch.state, batch.finished_at = "quarantined", tx.now
    main.head_id, main.fresh_optimizer, main.running_batch_id, main.updated_at = target.id, True, None, tx.now
    return target.id, sorted(batch_ids)


def leave_branch(tx: Transaction, batch_id: str | None, reason: str) -> str | None:
    """Where the bad batch is that of a fork's branch, give up the fork instead: its other branch, or its parent, is
    good. Returns the new head's id; None where it is not so."""
    branch = branch_of(tx.session, batch_id) if batch_id is not None else None
    if branch is None:
        return None
    abandon(tx, tx.session.get_one(Fork, branch.fork_id), f"the {branch.arm} branch is bad: {reason}", batch_id)
    main = line(tx.session)
    main.running_batch_id = None
    return main.head_id


def descends_from(tx: Transaction, head_id: str, ancestor_id: str) -> bool:
    """Whether the line at ``head_id`` has passed through ``ancestor_id``."""
    return any(checkpoint.id == ancestor_id for checkpoint in ancestry(tx.session, head_id))


def _batches_since(tx: Transaction, head_id: str, target_id: str) -> set[str]:
    """Batches trained on the way to the head since it parted from the way to ``target_id``."""
    kept = {checkpoint.id for checkpoint in ancestry(tx.session, target_id)}
    left = [checkpoint for checkpoint in ancestry(tx.session, head_id) if checkpoint.id not in kept]
    return {checkpoint.batch_id for checkpoint in left if checkpoint.batch_id is not None}
