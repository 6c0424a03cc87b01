from __future__ import annotations

from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.correction_backoff import CorrectionBatch, backed_off_classes, trained_corrections
from ratchet.ledger.queue import submit
from ratchet.ledger.tables import BatchRow, ImpactRow

CARRY = "chain_sum:carry"


def batch(gains: int, losses: int, name: str = CARRY) -> CorrectionBatch:
    """A batch of one class, measured."""
    return CorrectionBatch(frozenset({name}), {name: (gains, losses)})


def test_a_class_that_did_not_become_rarer_is_backed_off_after_enough_batches() -> None:
    bad = batch(1, 1)
    assert backed_off_classes([bad, bad], patience=3, pause=6) == {}
    backed_off = backed_off_classes([bad, bad, bad], patience=3, pause=6)
    assert backed_off == {CARRY: "3 gained, 3 lost over 3 correction batches"}


def test_a_class_with_a_gain_is_not_backed_off() -> None:
    history = [batch(0, 1), batch(5, 1), batch(0, 1)]
    assert backed_off_classes(history, patience=3, pause=6) == {}


def test_only_the_newest_measured_batches_count() -> None:
    unmeasured = CorrectionBatch(frozenset({CARRY}), {})
    history = [batch(9, 0), *[batch(0, 1)] * 3, unmeasured]
    assert list(backed_off_classes(history, patience=3, pause=6)) == [CARRY]


def test_a_backed_off_class_is_tried_again() -> None:
    bad, other = batch(0, 0), batch(3, 0, "reverse:order")
    assert backed_off_classes([bad, bad, other], patience=2, pause=2) != {}
    assert backed_off_classes([bad, bad, other, other], patience=2, pause=2) == {}


def add(tx: Transaction, name: str, at: float, gains: int) -> None:
    """A trained correction batch, and its impact on its one error class."""
    batch_id = submit(tx, name * 64, 10, "correction", {"classes": {"sums:carry": 1}}).batch_id
    tx.session.flush()
    row = tx.session.get_one(BatchRow, batch_id)
    row.state, row.submitted_at = "trained", at
    numbers = {"items": 9, "before": 3, "after": 3 - gains, "gains": gains, "losses": 0, "low": 0.0, "high": 1.0}
    impact = ImpactRow(
        batch_id=batch_id, checkpoint_id="c9", error_class="sums:carry", baseline_id="c1", created_at=at, **numbers
    )
    tx.session.add(impact)


def test_the_newest_measurements_are_read_oldest_first(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for place, name in enumerate("abcd"):
            add(tx, name, float(place), gains=place)
    taught = frozenset({"sums:carry"})
    with ledger.read() as session:
        assert trained_corrections(session, most=2) == [
            CorrectionBatch(taught, {"sums:carry": (gains, 0)}) for gains in (2, 3)
        ]
        assert len(trained_corrections(session)) == 4
