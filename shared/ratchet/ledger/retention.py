"""Which old events and records may be removed, and their removal from the ledger, a bounded number in a transaction.

A decision is a deployment, a rollback, a regression, a broken checkpoint or an open challenge. What one rests on is
never removed, whatever the ages in the settings: the events that led to it, back to the first, and the records of the
checkpoints that it compared. Verdicts and scores are columns of the ledger and are kept for ever; retention removes
events, and the artifacts with items. It does not know who calls it, and deletes no artifact itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import and_, delete, exists, func, not_, or_, select, true, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from ratchet.events.catalogue import CheckpointBroken, CheckpointDeployed, CheckpointRegressed, DeploymentRolledBack
from ratchet.ledger.ledger import Transaction, counter_value
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.suites import unanswered_requests, undecided
from ratchet.ledger.tables import (
    BatchRow,
    ChallengeRow,
    CheckpointRow,
    ClaimRow,
    CounterRow,
    DeploymentRow,
    EvaluationRow,
    LineageRow,
    MinedRow,
    OutboxRow,
    RegressionRow,
    ServingRow,
    SuiteRow,
    TaskRow,
    VerdictRow,
)
from ratchet.removed import REMOVED, removed_after

DAY_S = 86_400.0

DECISIONS = tuple(
    event.name for event in (CheckpointDeployed, CheckpointRegressed, CheckpointBroken, DeploymentRolledBack)
)
"""Events that are kept for ever, with all that led to them."""

NEWEST_KEPT = 100
"""Newest checkpoints that keep their events and records, however old they are: a run may have paused for months, and
the next challenger and the next trial are compared with them."""

EVENTS_AT_ONCE = 500
"""Events that one transaction looks at. It takes some 20 ms, and no other writer waits longer."""

RECORDS_AT_ONCE = 200
"""Records of each kind that one transaction removes."""

UNSETTLED = ("submitted", "queued", "training")
"""States of batches whose events may still lead to a decision."""

_CURSOR = "retention.seq"
"""Counter: the last event that was looked at in this round."""
_ROUND = "retention.day"
"""Counter: the day since 1970 on which the round began."""
_REMOVED = "retention.removed"
"""Counter: events removed so far."""
_CHUNK = 500
"""Values in one query."""


def kept_checkpoints(session: Session, newest_kept: int = NEWEST_KEPT) -> set[str]:
    """Checkpoints that a decision rests on or may still rest on. Their events and records are never removed.

    The base model; all that were ever deployed or rolled back, which those that followed were proved against; those
    that regressed, and what they were compared with; open challenges and contenders; what is claimed or asked for; the
    best of each suite and each task; the newest.
    """
    base = select(CheckpointRow.id).order_by(CheckpointRow.ordinal).limit(1)
    newest = select(CheckpointRow.id).order_by(CheckpointRow.ordinal.desc()).limit(newest_kept)
    kept: set[str | None] = {*session.scalars(base), *session.scalars(newest)}
    for row in session.scalars(select(ServingRow)):
        kept |= {row.desired_id, row.previous_id, row.actual_id}
    for line in session.scalars(select(LineageRow)):
        kept |= {line.head_id, line.adapter_base_id}
    for ids in session.execute(select(DeploymentRow.checkpoint_id, DeploymentRow.previous_id)):
        kept |= set(ids)
    for pair in session.execute(
        select(ChallengeRow.champion_id, ChallengeRow.challenger_id).where(ChallengeRow.outcome.is_(None))
    ):
        kept |= set(pair)
    for regressed in session.execute(
        select(RegressionRow.checkpoint_id, RegressionRow.baseline_id).where(RegressionRow.severity != "none")
    ):
        kept |= set(regressed)
    if session.get(ServingRow, "main") is not None:
        kept |= set(undecided(session))
    kept |= {request.checkpoint_id for request in session.scalars(unanswered_requests())}
    kept |= {subject.partition("/")[0] for subject in session.scalars(select(ClaimRow.subject_id))}
    kept |= set(session.scalars(select(TaskRow.best_id)))
    kept |= _best_of_suites(session)
    return {id for id in kept if id is not None}


def _best_of_suites(session: Session) -> set[str]:
    """The record with the highest score of each suite in force, which a regression is judged against."""
    found: set[str] = set()
    for suite in session.scalars(select(SuiteRow.id).where(SuiteRow.retired_at.is_(None))):
        score = EvaluationRow.tally["selection_score"].as_float()
        query = select(EvaluationRow.checkpoint_id).join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
        query = query.where(EvaluationRow.suite_id == suite, CheckpointRow.state != "broken", score.is_not(None))
        found |= set(session.scalars(query.order_by(score.desc(), CheckpointRow.ordinal.desc()).limit(1)))
    return found


def decisions_made(session: Session) -> tuple[int, int, int]:
    """How many deployments, challenges and regressions there are: while it stays, so does what is kept."""
    deployments, challenges = (session.scalar(select(func.max(table.id))) for table in (DeploymentRow, ChallengeRow))
    regressions = session.scalar(select(func.count()).select_from(RegressionRow))
    return deployments or 0, challenges or 0, regressions or 0


def kept_causes(session: Session, kept: Collection[str]) -> set[str]:
    """Ids of the events that woke a system for its verdict on one of these checkpoints, on its batch, or on a batch
    whose training has not ended."""
    records: set[str] = set()
    batches = set(session.scalars(select(BatchRow.id).where(BatchRow.state.in_(UNSETTLED))))
    for some in _chunks(kept):
        records |= set(session.scalars(select(EvaluationRow.id).where(EvaluationRow.checkpoint_id.in_(some))))
        saved_from = select(CheckpointRow.batch_id).where(CheckpointRow.id.in_(some))
        batches |= {id for id in session.scalars(saved_from) if id is not None}
    subjects = {"checkpoint": kept, "mined": kept, "request": records, "batch": batches, "coverage": batches}
    causes: set[str] = set()
    for system, kind in _decided_kinds(session):
        for some in _chunks(subjects.get(kind, ())):
            query = select(VerdictRow.cause).where(
                VerdictRow.system == system, VerdictRow.subject_kind == kind, VerdictRow.subject_id.in_(some)
            )
            causes |= {cause for cause in session.scalars(query) if cause is not None}
    return causes


def _decided_kinds(session: Session) -> Iterator[tuple[str, str]]:
    """The systems with the kinds of subjects that they have given verdicts on, each pair found by its own step into the
    index of verdicts, which begins with both."""
    last = ("", "")
    key = (VerdictRow.system, VerdictRow.subject_kind)
    while (
        found := session.execute(select(*key).where(tuple_(*key) > last).order_by(*key).limit(1)).first()
    ) is not None:
        last = (found.system, found.subject_kind)
        yield last


def removed_events(session: Session) -> int:
    """How many events retention has removed so far."""
    return counter_value(session, _REMOVED)


def has_old_events(session: Session, days: int, now: float) -> bool:
    """Whether ``remove_old_events`` has something to look at: a single row is read."""
    if days == 0:
        return False
    start = _start(session, now)
    query = select(OutboxRow.created_at).where(OutboxRow.seq > start).order_by(OutboxRow.seq).limit(1)
    oldest = session.scalar(query)
    return oldest is not None and oldest < now - days * DAY_S


def remove_old_events(tx: Transaction, days: int, causes: Collection[str], most: int = EVENTS_AT_ONCE) -> int | None:
    """Look at the next ``most`` events and remove those that may go; returns how many, None when there are no more.

    Removed is a relayed event older than ``days`` that is no decision, not among ``causes``, and led to no event that
    is still there: so a chain goes from its end, and whatever stays has all that led to it. The newest event always
    stays, since SQLite would give its number out again. Where the last call stopped is a counter in the ledger; once a
    day it begins again at the oldest event, for those that could not go the last time.
    """
    session, before = tx.session, tx.now - days * DAY_S
    if days == 0:
        return None
    columns = (OutboxRow.seq, OutboxRow.event_id, OutboxRow.cause, OutboxRow.name, OutboxRow.created_at)
    newest = session.scalar(select(func.max(OutboxRow.seq))) or 0
    start = _start(session, tx.now)
    query = select(*columns, OutboxRow.relayed_at).where(OutboxRow.seq > start, OutboxRow.seq < newest)
    rows = session.execute(query.order_by(OutboxRow.seq).limit(most)).all()
    old = [row for row in rows if row.created_at < before]
    last = old[-1].seq if old else start
    _set(session, _CURSOR, last)
    _set(session, _ROUND, int(tx.now // DAY_S))
    removed = 0
    while old:
        doomed = _at_ends(session, [row for row in old if _may_go(row, causes)])
        for some in _chunks(doomed):
            session.execute(delete(OutboxRow).where(OutboxRow.event_id.in_(some)))
        removed += len(doomed)
        parents = {row.cause for row in old if row.event_id in doomed and row.cause is not None} - doomed
        query = select(*columns, OutboxRow.relayed_at).where(OutboxRow.seq <= last, OutboxRow.created_at < before)
        old = [row for some in _chunks(parents) for row in _named(session, query, some)]
    if removed:
        _set(session, _REMOVED, removed_events(session) + removed)
    return removed if len(rows) == most and rows[-1].created_at < before else None


def _named(session: Session, query: Any, event_ids: Sequence[str]) -> Sequence[Any]:
    found: Sequence[Any] = session.execute(query.where(OutboxRow.event_id.in_(event_ids))).all()
    return found


def _may_go(row: Any, causes: Collection[str]) -> bool:
    return row.relayed_at is not None and row.name not in DECISIONS and row.event_id not in causes


def _at_ends(session: Session, rows: Sequence[Any]) -> set[str]:
    """Those of the events that led to none but others of the result."""
    led_to: dict[str, list[str]] = defaultdict(list)
    for some in _chunks(row.event_id for row in rows):
        effects = select(OutboxRow.cause, OutboxRow.event_id).where(OutboxRow.cause.in_(some))
        for cause, event_id in session.execute(effects):
            led_to[str(cause)].append(event_id)
    ends: set[str] = set()
    for row in sorted(rows, key=lambda row: -row.seq):  # an effect comes after its cause
        if all(effect in ends for effect in led_to[row.event_id]):
            ends.add(row.event_id)
    return ends


def _start(session: Session, now: float) -> int:
    """The event after which to go on: 0 for a new round, which begins once a day."""
    is_today = counter_value(session, _ROUND) == int(now // DAY_S)
    return counter_value(session, _CURSOR) if is_today else 0


def _set(session: Session, name: str, value: int) -> None:
    session.merge(CounterRow(name=name, value=value))


@dataclass(frozen=True)
class OldRecord:
    """An artifact with items that may be removed: the column that names it, and the key of the row."""

    column: InstrumentedAttribute[Any]
    key: str
    artifact: str


def old_records(
    session: Session,
    days: int,
    now: float,
    kept: Collection[str],
    readers: Collection[str] = (),
    most: int = RECORDS_AT_ONCE,
) -> list[OldRecord]:
    """Artifacts of answers, mined items and quarantined rows older than ``days``, at most so many of each.

    Those of ``kept`` checkpoints and of their batches stay, as do answers on a suite in force until each of the systems
    ``readers`` has given its verdict on them, and mined items that correction has not seen yet.
    """
    if days == 0:
        return []
    before = now - days * DAY_S
    answers = select(EvaluationRow.id, EvaluationRow.artifact, EvaluationRow.checkpoint_id).where(
        EvaluationRow.suite_id.in_(select(SuiteRow.id)),  # with the suite, time and checkpoint are read in an index
        EvaluationRow.created_at < before,
        EvaluationRow.artifact.not_like(f"{REMOVED}%"),
        or_(
            EvaluationRow.suite_id.in_(select(SuiteRow.id).where(SuiteRow.retired_at.is_not(None))),
            and_(true(), *(not_(lacks_verdict(name, "checkpoint", EvaluationRow.checkpoint_id)) for name in readers)),
        ),
    )
    seen = exists().where(
        VerdictRow.system == "correction",
        VerdictRow.subject_kind == "mined",
        VerdictRow.subject_id == MinedRow.checkpoint_id,
    )
    mined = select(MinedRow.checkpoint_id, MinedRow.artifact, MinedRow.checkpoint_id).where(
        MinedRow.created_at < before, MinedRow.artifact.not_like(f"{REMOVED}%"), seen
    )
    quarantine = select(BatchRow.id, BatchRow.quarantine_artifact, BatchRow.id).where(
        BatchRow.quarantined > 0,
        BatchRow.submitted_at < before,
        BatchRow.quarantine_artifact.not_like(f"{REMOVED}%"),
        BatchRow.state.not_in(UNSETTLED),
    )
    batches = select(CheckpointRow.batch_id)
    of_kept = {id for some in _chunks(kept) for id in session.scalars(batches.where(CheckpointRow.id.in_(some)))}
    found: list[OldRecord] = []
    for column, query, stay in (
        (EvaluationRow.artifact, answers, kept),
        (MinedRow.artifact, mined, kept),
        (BatchRow.quarantine_artifact, quarantine, of_kept),
    ):
        rows = ((key, artifact) for key, artifact, owner in session.execute(query) if owner not in stay)
        found += (OldRecord(column, str(key), str(artifact)) for key, artifact in islice(rows, most))
    return found


def remove_records(tx: Transaction, records: Iterable[OldRecord], days: int) -> set[str]:
    """Let the rows say that their artifacts were removed after ``days``; returns those that no row names any more.

    The caller deletes these after the commit, so that no row ever names a missing artifact.
    """
    session, gone = tx.session, set[str]()
    for record in records:
        table = record.column.class_
        (key,) = table.__table__.primary_key
        # A record that was made again meanwhile has another artifact, and stays.
        named = update(table).where(key == record.key, record.column == record.artifact)
        session.execute(named.values({record.column.key: removed_after(days)}))
        gone.add(record.artifact)
    # Equal content is one artifact, so another row may have the same.
    columns = (
        (EvaluationRow.artifact,),
        (MinedRow.artifact,),
        (BatchRow.quarantine_artifact, BatchRow.artifact, BatchRow.submitted_artifact),
    )
    for together in columns:
        for some in _chunks(sorted(gone)):
            for row in session.execute(select(*together).where(or_(*(column.in_(some) for column in together)))):
                gone -= set(row)
    return gone


def _chunks(values: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(values)
    while some := list(islice(rest, _CHUNK)):
        yield some
