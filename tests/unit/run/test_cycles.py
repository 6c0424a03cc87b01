"""A cycle is a trained checkpoint that everybody has decided on."""

from __future__ import annotations

from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow, VerdictRow
from ratchet.run.cycles import decided
from sqlalchemy import delete

from tests.support.rows import worker_row
from tests.support.story import add_verdict, checkpoint_id


def ordinals(ledger: Ledger) -> list[int]:
    with ledger.read() as session:
        return [d.ordinal for d in decided(session)]


def drop(ledger: Ledger, system: str, ordinal: int) -> None:
    with ledger.write() as tx:
        tx.session.execute(
            delete(VerdictRow).where(VerdictRow.system == system, VerdictRow.subject_id == checkpoint_id(ordinal))
        )


def test_a_further_system_for_every_checkpoint_is_waited_for(ledger: Ledger) -> None:
    """It is installed on another host, which its worker's row tells of."""
    told = {"order": 50, "per_checkpoint": True, "is_judge": True, "pending": None}
    with ledger.write() as tx:
        tx.session.add(worker_row("taste", declaration=told))
    assert ordinals(ledger) == []
    with ledger.write() as tx:
        add_verdict(tx, "taste", checkpoint_id(1), "fine", tx.now)
    assert ordinals(ledger) == [1]


def test_the_base_model_and_undecided_checkpoints_do_not_count(ledger: Ledger) -> None:
    assert ordinals(ledger) == [1, 2, 3, 4]


def test_one_missing_verdict_keeps_a_cycle_open(ledger: Ledger) -> None:
    drop(ledger, "calibration", 3)
    assert ordinals(ledger) == [1, 2, 4]


def test_a_dead_letter_is_a_last_word(ledger: Ledger) -> None:
    drop(ledger, "mining", 2)  # mining gave up on it, says the story
    assert 2 in ordinals(ledger)


def test_what_testing_called_superseded_was_never_judged(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(delete(VerdictRow).where(VerdictRow.subject_id == checkpoint_id(5)))
        add_verdict(tx, "testing", checkpoint_id(5), "superseded", tx.now)
    assert 5 not in ordinals(ledger)


def test_a_broken_checkpoint_is_decided_once_testing_has_said_so(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(delete(VerdictRow).where(VerdictRow.subject_id == checkpoint_id(5)))
        tx.session.get_one(CheckpointRow, checkpoint_id(5)).state = "broken"
    assert 5 not in ordinals(ledger)
    with ledger.write() as tx:
        add_verdict(tx, "testing", checkpoint_id(5), "broken", tx.now)
    assert 5 in ordinals(ledger)


def test_a_decision_knows_its_outcome_and_its_time(ledger: Ledger) -> None:
    with ledger.read() as session:
        found = {d.ordinal: d for d in decided(session)}
    assert [found[n].outcome for n in (1, 2, 3, 4)] == ["deployed", "refused", "deployed", "superseded"]
    assert found[1].judged_at < found[1].decided_at < found[2].judged_at
