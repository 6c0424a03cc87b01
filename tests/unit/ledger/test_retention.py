"""Old events and records are removed; what a decision rests on never is, whatever the ages in the settings."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ratchet.events.catalogue import CheckpointDeployed, QueueLow
from ratchet.ledger import Ledger
from ratchet.ledger.retention import (
    DECISIONS,
    has_old_events,
    kept_causes,
    kept_checkpoints,
    old_records,
    remove_old_events,
    remove_records,
    removed_events,
)
from ratchet.ledger.tables import (
    BatchRow,
    ChallengeRow,
    CheckpointRow,
    ClaimRow,
    CounterRow,
    DeploymentRow,
    EvaluationRow,
    MinedRow,
    OutboxRow,
    RegressionRow,
    SuiteRow,
)
from ratchet.removed import is_removed, removed_after
from sqlalchemy import delete, func, insert, select

from tests.support.rows import verdict

DAY = 86_400.0
NAMES = ("queue.low", "batch.submitted", "checkpoint.evaluated", *DECISIONS)

EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(NAMES),
            "cause": st.integers(-3, 40),
            "days_old": st.integers(0, 60),
            "relayed": st.sampled_from((True, True, True, False)),
        }
    ),
    max_size=40,
)


def fill_outbox(ledger: Ledger, told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """These events, the oldest first; the cause of each is one before it, or none."""
    with ledger.write() as tx:
        tx.session.execute(delete(OutboxRow))
        rows = [
            {
                "event_id": f"e{n}",
                "name": each["name"],
                "cause": f"e{each['cause']}" if 0 <= each["cause"] < n else None,
                "body": "{}",
                "created_at": tx.now - each["days_old"] * DAY,
                "relayed_at": tx.now if each["relayed"] else None,
            }
            for n, each in enumerate(sorted(told, key=lambda each: -each["days_old"]))
        ]
        if rows:
            tx.session.execute(insert(OutboxRow), rows)
    return rows


def left(ledger: Ledger) -> set[str]:
    with ledger.read() as session:
        return set(session.scalars(select(OutboxRow.event_id)))


def remove_all(ledger: Ledger, days: int, causes: set[str], most: int = 500) -> int:
    """As many transactions as it takes; the number of removed events."""
    for _ in range(200):
        with ledger.write() as tx:
            if remove_old_events(tx, days, causes, most) is None:
                break
    else:
        pytest.fail("it does not come to an end")
    with ledger.read() as session:
        return removed_events(session)


@pytest.fixture(scope="module")
def shared_ledger(tmp_path_factory: pytest.TempPathFactory, migrated: Any) -> Any:
    """SQLite, for a test that fills it again and again."""
    path = tmp_path_factory.mktemp("retention") / "ledger.db"
    shutil.copyfile(migrated(), path)
    ledger = Ledger(f"sqlite:///{path}")
    yield ledger
    ledger.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.integers(1, 50), st.sets(st.integers(0, 40), max_size=3), st.integers(1, 9))
def test_whatever_the_age_nothing_that_a_decision_rests_on_is_removed(
    shared_ledger: Ledger, told: list[dict[str, Any]], days: int, named: set[int], most: int
) -> None:
    rows = fill_outbox(shared_ledger, told)
    causes = {f"e{n}" for n in named}
    with shared_ledger.write() as tx:  # the round of the last example is over
        tx.session.execute(delete(CounterRow))
    remove_all(shared_ledger, days, causes, most)
    stay, by_id = left(shared_ledger), {row["event_id"]: row for row in rows}
    now = max((row["created_at"] for row in rows), default=0.0)
    for row in rows:
        is_young = row["created_at"] > now - days * DAY
        if row["name"] in DECISIONS or row["event_id"] in causes or row["relayed_at"] is None or is_young:
            assert row["event_id"] in stay
    for event_id in stay:  # and all that led to what stays
        cause = by_id[event_id]["cause"]
        assert cause is None or cause in stay
    needless = {cause for event_id in stay if (cause := by_id[event_id]["cause"])}
    for event_id in stay:
        row = by_id[event_id]
        could_go = row["name"] not in DECISIONS and event_id not in causes and row["relayed_at"] is not None
        is_old = row["created_at"] < now - (days + 1) * DAY
        assert not (could_go and is_old and event_id not in needless and row is not rows[-1])


def test_events_go_and_the_number_is_known(ledger: Ledger) -> None:
    young = {"name": "queue.low", "cause": -1, "days_old": 1, "relayed": True}
    fill_outbox(ledger, [*[{**young, "days_old": 30}] * 30, *[young] * 5])
    with ledger.read() as session:
        now = session.scalar(select(func.max(OutboxRow.created_at)))
        assert now is not None
        assert has_old_events(session, 7, now)
        assert not has_old_events(session, 0, now), "0 keeps all"
    assert remove_all(ledger, 7, set(), most=4) == 30
    assert len(left(ledger)) == 5
    with ledger.read() as session:
        assert not has_old_events(session, 7, now)


def test_the_newest_event_stays_so_that_its_number_is_not_given_out_again(ledger: Ledger) -> None:
    fill_outbox(ledger, [{"name": "queue.low", "cause": -1, "days_old": 90, "relayed": True}] * 3)
    remove_all(ledger, 1, set())
    with ledger.write() as tx:
        tx.emit(QueueLow(depth=1, low_water=2))
    with ledger.read() as session:
        numbers = list(session.scalars(select(OutboxRow.seq).order_by(OutboxRow.seq)))
        assert numbers[1] == numbers[0] + 1


def test_what_could_not_go_goes_on_another_day(ledger: Ledger) -> None:
    fill_outbox(ledger, [{"name": "queue.low", "cause": -1, "days_old": 90, "relayed": True}] * 3)
    assert remove_all(ledger, 1, {"e0"}) == 1
    assert remove_all(ledger, 1, set()) == 1, "the round of this day is over"
    with ledger.write() as tx:
        tx.now += DAY
        remove_old_events(tx, 1, set())
    assert left(ledger) == {"e2"}


def checkpoint(ordinal: int, **columns: Any) -> CheckpointRow:
    id = f"c{ordinal:04d}"
    fixed = {"step": ordinal, "tokens": 0, "weights": id, "artifact": id, "size_bytes": 1, "created_at": float(ordinal)}
    return CheckpointRow(id=id, ordinal=ordinal, **{**fixed, **columns})


def add_history(ledger: Ledger, count: int, start: int = 0, at: float = 0.0) -> None:
    """Checkpoints of a batch each, judged, mined and with rows in quarantine, all with events of their own."""
    with ledger.write() as tx:
        session = tx.session
        if not start:
            session.add(
                SuiteRow(id="s", pool="eval", ordinal=0, artifact="s", items=1, created_at=0.0, retired_at=None)
            )
            session.flush()
        for n in range(start, start + count):
            id, batch = f"c{n:04d}", f"b{n}"
            session.add(
                BatchRow(
                    id=batch,
                    origin="generation",
                    state="trained",
                    priority=1,
                    submitted_artifact=f"{n}s",
                    artifact=f"{n}a",
                    quarantine_artifact=f"{n}q",
                    submitted_examples=1,
                    quarantined=3,
                    provenance={},
                    submitted_at=at,
                )
            )
            session.add(checkpoint(n, batch_id=batch, created_at=at))
            session.flush()
            record = {"pool": "eval", "key": {}, "items": 1, "correct": 1, "by_level": {}, "tokens_per_s": 1.0}
            session.add(
                EvaluationRow(
                    id=f"{id}/s",
                    checkpoint_id=id,
                    suite_id="s",
                    artifact=f"{n}r",
                    tally={"selection_score": 0.5 if n != start + 4 else 0.5 + n / 1_000},
                    created_at=at,
                    **record,
                )
            )
            session.add(
                MinedRow(checkpoint_id=id, artifact=f"{n}m", count=1, by_category={}, numbers={}, created_at=at)
            )
            session.add(verdict("correction", "mined", id, "submitted", at))
            causes = [f"{n}-queued", f"{n}-saved", f"{n}-evaluated"]
            for name, cause in zip(causes, [None, *causes], strict=False):
                fields = {"name": "checkpoint.saved", "body": "{}", "created_at": at, "relayed_at": at}
                session.add(OutboxRow(event_id=name, cause=cause, **fields))
                session.flush()
            session.add(verdict("testing", "checkpoint", id, "evaluated", at, cause=causes[1]))
            session.add(verdict("regression", "checkpoint", id, "cleared", at, cause=causes[2]))


def test_what_each_decision_rests_on_is_kept(ledger: Ledger) -> None:
    add_history(ledger, 20)
    with ledger.write() as tx:
        note = {"reason": "", "numbers": {}, "token": 1, "created_at": 0.0}
        tx.session.add(DeploymentRow(action="deploy", actor="gate", checkpoint_id="c0006", previous_id="c0005", **note))
        tx.session.add(
            RegressionRow(checkpoint_id="c0008", baseline_id="c0009", severity="mild", numbers={}, created_at=0.0)
        )
        tx.session.add(
            RegressionRow(checkpoint_id="c0010", baseline_id="c0011", severity="none", numbers={}, created_at=0.0)
        )
        pair = {"suite_id": "s", "numbers": {}, "created_at": 0.0}
        tx.session.add(ChallengeRow(champion_id="c0006", challenger_id="c0012", k=1, outcome=None, **pair))
        tx.session.add(ChallengeRow(champion_id="c0006", challenger_id="c0013", k=2, outcome="refuse", **pair))
        at = dict.fromkeys(("first_at", "claimed_at", "heartbeat_at", "expires_at", "not_before_at"), 0.0)
        subject = {"subject_kind": "request", "subject_id": "c0014/s"}
        tx.session.add(ClaimRow(system="testing", token=1, owner=None, **subject, **at))
    with ledger.read() as session:
        kept = kept_checkpoints(session, newest_kept=2)
        assert kept == {f"c{n:04d}" for n in (0, 4, 5, 6, 8, 9, 12, 14, 18, 19)}
        causes = kept_causes(session, kept)
        assert {"6-saved", "6-evaluated", "12-saved"} <= causes
        assert "7-saved" not in causes
        now = 100 * DAY
        found = old_records(session, 30, now, kept)
        assert {record.key for record in found} & {f"{id}/s" for id in kept} == set()
        assert {record.artifact for record in found} == {
            f"{n}{kind}" for n in set(range(20)) - {int(id[1:]) for id in kept} for kind in "rmq"
        }
        assert old_records(session, 0, now, kept) == []
        assert old_records(session, 101, now, kept) == []


def test_a_row_says_that_its_artifact_was_removed_and_shared_ones_stay(ledger: Ledger) -> None:
    add_history(ledger, 4)
    with ledger.write() as tx:
        tx.session.get_one(EvaluationRow, "c0001/s").artifact = "2r"  # equal answers are one artifact
    with ledger.read() as session:
        found = [record for record in old_records(session, 30, 99 * DAY, ()) if record.key in ("c0001/s", "b3")]
    with ledger.write() as tx:
        assert remove_records(tx, found, 30) == {"3q"}
    with ledger.read() as session:
        assert session.get_one(EvaluationRow, "c0001/s").artifact == removed_after(30)
        assert is_removed(session.get_one(BatchRow, "b3").quarantine_artifact)
        assert session.get_one(EvaluationRow, "c0002/s").artifact == "2r"


def test_a_record_made_again_meanwhile_stays(ledger: Ledger) -> None:
    add_history(ledger, 2)
    with ledger.read() as session:
        found = old_records(session, 30, 99 * DAY, ())
    with ledger.write() as tx:
        tx.session.get_one(EvaluationRow, "c0001/s").artifact = "new"
        tx.session.flush()
        remove_records(tx, found, 30)
    with ledger.read() as session:
        assert session.get_one(EvaluationRow, "c0001/s").artifact == "new"


def test_growth_stops(ledger: Ledger) -> None:
    """Cycles of six checkpoints a week, kept for three weeks: rows of events and artifacts come to a fixed number."""
    events, artifacts = [], []
    for week in range(7):
        at = week * 7 * DAY
        add_history(ledger, 6, start=6 * week, at=at)
        with ledger.write() as tx:
            tx.now = at + DAY
            tx.emit(CheckpointDeployed(checkpoint_id="c0000", previous_id=None)) if week == 0 else None
        with ledger.read() as session:
            kept = kept_checkpoints(session, newest_kept=5)
            causes, found = kept_causes(session, kept), old_records(session, 21, at + DAY, kept)
        while True:
            with ledger.write() as tx:
                tx.now = at + DAY
                if remove_old_events(tx, 21, causes) is None:
                    break
        with ledger.write() as tx:
            remove_records(tx, found, 21)
        with ledger.read() as session:
            events.append(session.scalar(select(func.count()).select_from(OutboxRow)) or 0)
            named = [
                *session.scalars(select(EvaluationRow.artifact)),
                *session.scalars(select(MinedRow.artifact)),
                *session.scalars(select(BatchRow.quarantine_artifact)),
            ]
            artifacts.append(sum(not is_removed(artifact) for artifact in named))
    assert max(events[4:]) - min(events[4:]) <= 6, events
    assert max(artifacts[4:]) - min(artifacts[4:]) <= 6, artifacts
    assert events[-1] < 100 < 3 * 6 * 7
