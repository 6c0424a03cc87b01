from __future__ import annotations

from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.correction_backoff import CorrectionBatch, trained_corrections
from ratchet.ledger.queue import submit
from ratchet.ledger.tables import BatchRow, ImpactRow


def add(tx: Transaction, name: str, at: float, gains: int) -> None:
    """A correction batch that was trained, and what it did to the one class that it taught."""
    batch_id = submit(tx, name * 64, 10, "correction", {"classes": {"sums:carry": 1}}).batch_id
    tx.session.flush()
    row = tx.session.get_one(BatchRow, batch_id)
    row.state, row.submitted_at = "trained", at
    numbers = {"items": 9, "before": 3, "after": 3 - gains, "gains": gains, "losses": 0, "low": 0.0, "high": 1.0}
    impact = ImpactRow(
        batch_id=batch_id, checkpoint_id="c9", error_class="sums:carry", baseline_id="c1", created_at=at, **numbers
    )
    tx.session.add(impact)


def test_the_newest_are_looked_back_on_the_oldest_of_them_first(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for place, name in enumerate("abcd"):
            add(tx, name, float(place), gains=place)
    taught = frozenset({"sums:carry"})
    with ledger.read() as session:
        assert trained_corrections(session, most=2) == [
            CorrectionBatch(taught, {"sums:carry": (gains, 0)}) for gains in (2, 3)
        ]
        assert len(trained_corrections(session)) == 4
