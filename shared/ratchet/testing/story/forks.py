"""A fork beside the story."""

from __future__ import annotations

from ratchet.ledger import Transaction
from ratchet.ledger.tables import (
    Branch,
    Fork,
)
from ratchet.testing.story.names import batch_id, checkpoint_id


def write_fork(tx: Transaction) -> None:
    """Beside the story: #4 and #5 are the tips of a fork from #3, decided for the second."""
    start = tx.now - 100.0
    tx.session.add(
        Fork(
            id=1,
            state="decided",
            curriculum_id=1,
            parent_id=checkpoint_id(3),
            adapter_base_id=None,
            winner=1,
            numbers={"items": 300, "gains": 20, "losses": 5, "p": 0.004, "low": 0.018, "high": 0.085, "points": 5.0},
            reason="adaptive beats mixed: 20 won and 5 lost of 300 items",
            opened_at=start,
            closed_at=tx.now,
        )
    )
    tx.session.flush()
    for place, (arm, ordinal) in enumerate((("mixed", 4), ("adaptive", 5))):
        tx.session.add(
            Branch(
                fork_id=1,
                place=place,
                arm=arm,
                probability=1.0,
                batch_id=batch_id(ordinal),
                tip_id=checkpoint_id(ordinal),
                adapter_base_id=None,
            )
        )
