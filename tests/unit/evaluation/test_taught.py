from __future__ import annotations

from ratchet.ledger.correction_backoff import CorrectionBatch, backed_off_classes

CARRY = "chain_sum:carry"


def taught(gains: int, losses: int, name: str = CARRY) -> CorrectionBatch:
    """A batch of one class, measured."""
    return CorrectionBatch(frozenset({name}), {name: (gains, losses)})


def test_a_class_that_did_not_become_rarer_is_stopped_after_enough_batches() -> None:
    bad = taught(1, 1)
    assert backed_off_classes([bad, bad], patience=3, pause=6) == {}
    stopped = backed_off_classes([bad, bad, bad], patience=3, pause=6)
    assert stopped == {CARRY: "3 gained, 3 lost over 3 correction batches"}


def test_a_gain_keeps_it_going() -> None:
    history = [taught(0, 1), taught(5, 1), taught(0, 1)]
    assert backed_off_classes(history, patience=3, pause=6) == {}


def test_only_the_newest_measured_batches_count() -> None:
    unmeasured = CorrectionBatch(frozenset({CARRY}), {})
    history = [taught(9, 0), *[taught(0, 1)] * 3, unmeasured]
    assert list(backed_off_classes(history, patience=3, pause=6)) == [CARRY]


def test_it_is_tried_again_after_a_rest() -> None:
    bad, other = taught(0, 0), taught(3, 0, "reverse:order")
    assert backed_off_classes([bad, bad, other], patience=2, pause=2) != {}
    assert backed_off_classes([bad, bad, other, other], patience=2, pause=2) == {}
