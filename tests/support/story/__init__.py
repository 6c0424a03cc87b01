"""A ledger with a plausible story, for tests of what reads one: five judged checkpoints, the sixth in training."""

from __future__ import annotations

from ratchet.events.catalogue import QueueLow, TrainingStarted
from ratchet.ledger import Transaction
from ratchet.ledger.tables import SuiteRow

from tests.support.story.names import batch_id, checkpoint_id
from tests.support.story.past import add_batch, add_checkpoint, add_judgement, add_verdict
from tests.support.story.present import add_claim, add_curriculum, add_dead_letter, add_line, add_workers

__all__ = ["add_verdict", "batch_id", "checkpoint_id", "write_story"]


def write_story(tx: Transaction) -> None:
    start = tx.now - 300.0
    for pool in ("probe", "eval", "confirm"):
        tx.session.add(
            SuiteRow(
                id=f"{pool}-1",
                pool=pool,
                ordinal=1,
                artifact="a" * 64,
                items=300,
                uses=2,
                created_at=start,
                retired_at=None,
            )
        )
    tx.session.flush()
    for ordinal in range(6):
        if ordinal:
            add_batch(tx, ordinal, start + 50 * ordinal, "trained")
            tx.session.flush()
        add_checkpoint(tx, ordinal, start + 50 * ordinal)
        tx.session.flush()
        add_judgement(tx, ordinal, start + 50 * ordinal)
    add_batch(tx, 6, tx.now - 20, "training", offset=3200)
    add_batch(tx, 7, tx.now - 10, "queued", origin="correction")
    add_batch(tx, 8, tx.now - 5, "submitted", origin="file")
    add_line(tx)
    add_curriculum(tx)
    add_dead_letter(tx, start + 120)
    add_workers(tx, start)
    add_claim(tx)
    tx.emit(TrainingStarted(batch_id=batch_id(6)))
    tx.emit(QueueLow(depth=9_000, low_water=12_000))
