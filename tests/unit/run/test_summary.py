"""Which cycles are complete, and the summary at the end of a run."""

from __future__ import annotations

from ratchet.ledger import Ledger
from ratchet.ledger.tables import CheckpointRow, EvaluationRequestRow, EvaluationRow, SuiteRow, TaskRow, VerdictRow
from ratchet.run.summary import Summary, completed_cycles, has_undecided, render, summarize
from sqlalchemy import delete, select

from tests.support.rows import worker_row
from tests.support.story import add_verdict, checkpoint_id


def ordinals(ledger: Ledger) -> list[int]:
    with ledger.read() as session:
        return [d.ordinal for d in completed_cycles(session)]


def drop(ledger: Ledger, system: str, ordinal: int) -> None:
    with ledger.write() as tx:
        tx.session.execute(
            delete(VerdictRow).where(VerdictRow.system == system, VerdictRow.subject_id == checkpoint_id(ordinal))
        )


def test_a_cycle_waits_for_a_plug_in_system(ledger: Ledger) -> None:
    """It is installed on another host, which its worker's row tells of."""
    told = {"order": 50, "per_checkpoint": True, "is_judge": True, "pending": None}
    with ledger.write() as tx:
        tx.session.add(worker_row("taste", tx.now, declaration=told))
    assert ordinals(ledger) == []
    with ledger.write() as tx:
        add_verdict(tx, "taste", checkpoint_id(1), "fine", tx.now)
    assert ordinals(ledger) == [1]


def test_the_base_model_and_undecided_checkpoints_do_not_count(ledger: Ledger) -> None:
    """Nor does #4, which #5 superseded."""
    assert ordinals(ledger) == [1, 2, 3]


def test_one_missing_verdict_keeps_a_cycle_open(ledger: Ledger) -> None:
    drop(ledger, "calibration", 3)
    assert ordinals(ledger) == [1, 2]


def test_a_dead_letter_counts_as_a_decision(ledger: Ledger) -> None:
    drop(ledger, "mining", 2)  # mining gave up on it, says the story
    assert 2 in ordinals(ledger)


def test_a_checkpoint_that_waits_for_its_test_on_new_suites_is_undecided(ledger: Ledger) -> None:
    def undecided() -> bool:
        with ledger.read() as session:
            return has_undecided(session)

    drop(ledger, "deployment", 5)
    assert undecided()
    with ledger.write() as tx:
        for old in tx.session.scalars(select(SuiteRow).where(SuiteRow.pool != "confirm")).all():
            old.retired_at = tx.now
            new = {"ordinal": 2, "artifact": old.artifact, "items": old.items, "uses": 0, "created_at": tx.now}
            tx.session.add(SuiteRow(id=f"{old.pool}-2", pool=old.pool, **new))
    assert not undecided()
    with ledger.write() as tx:
        tx.session.add(
            EvaluationRequestRow(
                checkpoint_id=checkpoint_id(5), suite_id="eval-2", requested_by="test", created_at=tx.now
            )
        )
    assert undecided()


def test_a_superseded_checkpoint_is_not_judged(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(delete(VerdictRow).where(VerdictRow.subject_id == checkpoint_id(5)))
        add_verdict(tx, "testing", checkpoint_id(5), "superseded", tx.now)
    assert 5 not in ordinals(ledger)


def test_a_broken_checkpoint_is_decided_by_the_verdict_of_testing(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(delete(VerdictRow).where(VerdictRow.subject_id == checkpoint_id(5)))
        tx.session.get_one(CheckpointRow, checkpoint_id(5)).state = "broken"
    assert 5 not in ordinals(ledger)
    with ledger.write() as tx:
        add_verdict(tx, "testing", checkpoint_id(5), "broken", tx.now)
    assert 5 in ordinals(ledger)


def test_a_decision_knows_its_outcome_and_its_time(ledger: Ledger) -> None:
    with ledger.read() as session:
        found = {d.ordinal: d for d in completed_cycles(session)}
    assert [found[n].outcome for n in (1, 2, 3)] == ["deployed", "refused", "deployed"]
    assert found[1].judged_at < found[2].judged_at


def summary(ledger: Ledger, since_s: float, done: frozenset[str] = frozenset()) -> Summary:
    now = ledger.now()
    with ledger.read() as session:
        return summarize(session, now - since_s, now, done)


def test_the_summary_shows_what_was_learnt_and_deployed_and_why(ledger: Ledger) -> None:
    text = render(summary(ledger, 1000.0), "http://127.0.0.1:8100", "ratchet")
    for said in (
        "3 checkpoints trained, judged and decided in 16 min 40 s; 1 more superseded by newer ones.",
        "Live is #3; right answers on the eval suite:\n  chain_sum  level 1 100 %, level 2 92 %",
        "deployed #1 over #0: +16.7 points",
        "deployed #3 over #1: +16.7 points",
        "Trained on 43,200 examples, 400 of them corrections of its own mistakes; 70 weak items were mined.",
        "1 dead letter: `ratchet dead list` has them.",
        "http://127.0.0.1:8100/v1",
        "`ratchet run` continues from here",
    ):
        assert said in text


def test_the_summary_compares_each_task_with_the_base_model(ledger: Ledger) -> None:
    letters = {"letters": {"metric": "loss", "items": 9, "n": 9, "low": 1.0, "high": 2.0}}
    with ledger.write() as tx:
        tx.session.add_all(
            TaskRow(
                name=name, kind="user", metric=metric, source="a file", held_out={}, rows=9, held_rows=3,
                created_at=tx.now, updated_at=tx.now,
            )
            for name, metric in (("letters", "loss"), ("places", "accuracy"))
        )  # fmt: skip
        for ordinal, mean, right in ((0, 1.93, 1), (3, 1.52, 4)):
            query = select(EvaluationRow).where(
                EvaluationRow.checkpoint_id == checkpoint_id(ordinal), EvaluationRow.pool == "eval"
            )
            for row in tx.session.scalars(query):
                row.by_level = {**row.by_level, "places": {"1": [right, 10]}}
                row.scores = {"letters": {**letters["letters"], "mean": mean}}
    text = render(summary(ledger, 1000.0), "http://127.0.0.1:8100", "ratchet")
    assert "letters: 1.52 nats a token (base model: 1.93 nats a token)" in text
    assert "places: 40% right (base model: 10% right)" in text


def test_the_summary_leaves_out_what_came_before_the_run(ledger: Ledger) -> None:
    before = frozenset(checkpoint_id(n) for n in (1, 2))
    found = summary(ledger, 130.0, before)
    assert [d.ordinal for d in found.cycles] == [3]
    assert found.superseded == 1
    assert [change.ordinal for change in found.changes] == []
    assert found.first_deployed_s is None
    assert "(not yet)" in render(found, "http://x", "ratchet")


def test_times_to_the_first_judgement_and_deployment_are_measured_from_the_start(ledger: Ledger) -> None:
    found = summary(ledger, 300.0)
    assert found.first_judged_s is not None
    assert found.first_deployed_s is not None
    assert 50 < found.first_judged_s < found.first_deployed_s < 60
