"""Reads a View from the ledger: a dozen indexed queries, about a millisecond each. It does not know how the view is
displayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.capacity import disk_shortage
from ratchet.evaluation.record import overall_rate, rates_from_json, scores_from_json
from ratchet.ledger import Ledger, health
from ratchet.ledger.deployments import CHAMPION_CHANGES
from ratchet.ledger.ledger import clock
from ratchet.ledger.lineage import unjudged
from ratchet.ledger.live_training import LiveTraining, live_training
from ratchet.ledger.queue import depth, low_mark
from ratchet.ledger.tables import (
    BatchRow,
    CheckpointRow,
    ClaimRow,
    CurriculumRow,
    DamageRow,
    DeadLetterRow,
    DeploymentRow,
    EvaluationRow,
    LineageRow,
    ServingRow,
    VerdictRow,
    WorkerRow,
)
from ratchet.settings import Settings
from ratchet.systems import registry
from ratchet.user_tasks.supply import USED_UP, are_passes_left
from ratchet.user_tasks.task import all_tasks
from ratchet.views.activity import recent
from ratchet.views.event_words import Names
from ratchet.views.presence import hosts_present, read_presence
from ratchet.views.view_model import Busy, CheckpointView, Deployed, Queue, TaskView, Training, View, training_line
from ratchet.wording import duration, shortened

SHOWN_POOL = "eval"
CHUNK = 1_000
"""Checkpoints in one query; database engines limit the number of bound values."""


def read_view(ledger: Ledger, settings: Settings, *, checkpoints: int = 12, activities: int = 30) -> View:
    """The current view, with at most that many of the newest checkpoints and activities."""
    now = ledger.now()
    with ledger.read() as session:
        live = live_training(session, settings)
        newest = session.scalars(select(CheckpointRow).order_by(CheckpointRow.ordinal.desc()).limit(checkpoints)).all()
        return View(
            at=now,
            queue=_queue(session, settings),
            training=_training(session, live),
            checkpoints=read_checkpoints(session, newest),
            live=read_live(session),
            activities=recent(session, activities),
            busy=_busy(session, now),
            workers={w.name: w.state for w in session.scalars(select(WorkerRow).order_by(WorkerRow.name))},
            dead=session.scalar(
                select(func.count()).select_from(DeadLetterRow).where(DeadLetterRow.resolved_at.is_(None))
            )
            or 0,
            mix=_mix(session),
            title=settings.model.path,
            previews=live.previews,
            hosts=hosts_present(session, now),
            warnings=read_warnings(session, settings, now),
            tasks=tuple(
                TaskView(task.name, task.passes, task.state, task.reason) for task in all_tasks(session, "user")
            ),
        )


def _queue(session: Session, settings: Settings) -> Queue:
    counts = session.execute(select(BatchRow.state, func.count()).group_by(BatchRow.state)).all()
    return Queue(
        depth=depth(session).total,
        low_water=low_mark(settings),
        high_water=settings.queue.high_water,
        batches={state: int(count) for state, count in counts},
        quarantined=session.scalar(select(func.sum(BatchRow.quarantined)).where(BatchRow.quarantined > 0)) or 0,
    )


def training_now(session: Session, settings: Settings) -> dict[str, Any]:
    """What training is doing, as values that JSON takes, with the line that shows them, or that nothing is at work."""
    found = _training(session, live_training(session, settings, 1))
    presence = read_presence(session, settings, clock(session))
    return {**asdict(found), "line": presence.line or training_line(found)}


def _training(session: Session, live: LiveTraining) -> Training:
    line = session.scalar(select(LineageRow).limit(1))
    batch = session.scalar(select(BatchRow).where(BatchRow.state == "training").limit(1))
    if batch is None:
        paused = line is not None and line.paused
        return Training("paused" if paused else "starting" if live.is_claimed else _why_idle(session))
    status = live.status
    return Training(
        state=str(status.get("state") or "training") if live.is_claimed else "idle",
        batch_id=batch.id,
        origin=batch.origin,
        done=max(batch.offset, _examples_done(status, batch.examples)),
        total=batch.examples,
        step=status.get("step"),
        loss=status.get("loss"),
        tokens_per_s=status.get("tokens_per_s"),
    )


def _why_idle(session: Session) -> str:
    """Whether the next pass over users' rows waits for the judges, all rows are used up, or there are none."""
    states = {task.state for task in all_tasks(session, "user")}
    if are_passes_left(session) and unjudged(session):
        return "judged"
    return "used_up" if states == {USED_UP} else "waiting"


def _examples_done(status: Mapping[str, Any], examples: int) -> int:
    """How many of the batch's examples are done; the status counts them once for each epoch."""
    done, total = int(status.get("examples_done") or 0), int(status.get("examples_total") or 0)
    return examples * done // total if total else 0


def read_checkpoints(session: Session, rows: Sequence[CheckpointRow]) -> tuple[CheckpointView, ...]:
    """The checkpoints as the view shows them, in the order given; any number of them."""
    parts = (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    return tuple(shown for part in parts for shown in _checkpoint_views(session, part))


def _checkpoint_views(session: Session, rows: Sequence[CheckpointRow]) -> Iterator[CheckpointView]:
    ids = [row.id for row in rows]
    wanted = tuple(registry.per_checkpoint(session))
    # Only these columns: the numbers of eight verdicts on each checkpoint are megabytes of JSON.
    columns = select(EvaluationRow.checkpoint_id, EvaluationRow.by_level, EvaluationRow.scores)
    of_pool = columns.where(EvaluationRow.checkpoint_id.in_(ids), EvaluationRow.pool == SHOWN_POOL)
    evaluations = {e.checkpoint_id: e for e in session.execute(of_pool.order_by(EvaluationRow.created_at))}
    outcomes: dict[str, dict[str, str]] = {}
    given = select(VerdictRow.subject_id, VerdictRow.system, VerdictRow.outcome)
    # The index of verdicts begins with the system: without it the whole table would be read.
    given = given.where(VerdictRow.system.in_({*wanted, "testing", "deployment"}))
    given = given.where(VerdictRow.subject_kind == "checkpoint", VerdictRow.subject_id.in_(ids))
    for verdict in session.execute(given):
        outcomes.setdefault(verdict.subject_id, {})[verdict.system] = verdict.outcome
    yield from (_checkpoint_view(row, evaluations.get(row.id), outcomes.get(row.id, {}), wanted) for row in rows)


def _checkpoint_view(
    row: CheckpointRow, evaluation: Any, outcomes: dict[str, str], wanted: tuple[str, ...]
) -> CheckpointView:
    levels = rates_from_json(evaluation.by_level) if evaluation else {}
    return CheckpointView(
        id=row.id,
        ordinal=row.ordinal,
        step=row.step,
        created_at=row.created_at,
        state=row.state,
        loss=row.train_loss,
        overall=overall_rate(levels),
        levels=levels,
        scores=scores_from_json(evaluation.scores) if evaluation else {},
        outcomes=outcomes,
        verdicts_wanted=wanted,
    )


def read_live(session: Session) -> Deployed | None:
    serving = session.scalar(select(ServingRow).limit(1))
    if serving is None:
        return None
    ids = [i for i in (serving.desired_id, serving.actual_id) if i]
    found = select(CheckpointRow.id, CheckpointRow.ordinal).where(CheckpointRow.id.in_(ids))
    ordinals: dict[str, int] = {row.id: row.ordinal for row in session.execute(found)}
    changes = select(DeploymentRow).where(DeploymentRow.action.in_(CHAMPION_CHANGES))
    last = session.scalar(changes.order_by(DeploymentRow.id.desc()).limit(1))
    return Deployed(
        desired=ordinals.get(serving.desired_id, 0),
        actual=ordinals.get(serving.actual_id) if serving.actual_id else None,
        reason=last.reason if last else "",
        since_at=serving.since_at,
        proved=serving.proved,
        frozen_reason=serving.frozen_reason,
        deployments=session.scalar(select(func.count()).select_from(changes.subquery())) or 0,
    )


def _busy(session: Session, now: float) -> tuple[Busy, ...]:
    rows = session.scalars(
        select(ClaimRow).where(ClaimRow.owner.is_not(None), ClaimRow.expires_at > now).order_by(ClaimRow.system)
    )
    names = Names(session)
    return tuple(Busy(r.system, names.of(r.subject_kind, r.subject_id), r.claimed_at, r.note) for r in rows)


def _mix(session: Session) -> dict[str, float]:
    row = session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))
    shares = row.mix.get("shares", ()) if row else ()
    return {f"{share['family']}/{share['level']}": float(share["weight"]) for share in shares}


ROOM = 200
"""The most characters of an error that a warning quotes."""


def read_warnings(session: Session, settings: Settings, now: float) -> tuple[str, ...]:
    """The most urgent first."""
    return tuple(_warnings(session, settings, now))


def _warnings(session: Session, settings: Settings, now: float) -> Iterator[str]:
    if (shortage := disk_shortage(settings.home)) is not None:
        yield shortage
    for worker in health.failing_workers(session, now):
        last = shortened(health.last_line(worker.error), ROOM)
        yield f"{worker.name} fails when it is started: {last}: `ratchet doctor` shows the traceback"
    for worker in health.expected_workers(session, now)[1]:
        unseen = duration(now - worker.seen_at)
        yield f"{worker.name} has not been seen for {unseen}: check that machine, or `ratchet logs {worker.system}`"
    fallback = session.scalar(select(ServingRow.fallback_reason).limit(1))
    if fallback is not None:
        yield fallback
    for worker in health.waiting_workers(session, now):
        yield f"{worker.name} waits: {shortened(worker.error or '', ROOM)}"
    yield from _damages(session, now)


def _damages(session: Session, now: float) -> Iterator[str]:
    """One warning per artifact, even if several subjects wait for it; the latest subject's error is shown."""
    by_artifact: dict[str, list[DamageRow]] = {}
    for damage in health.damages_since(session, now - health.DAMAGE_SHOWN_S):
        by_artifact.setdefault(damage.artifact, []).append(damage)
    for found in by_artifact.values():
        subjects = len({(damage.subject_kind, damage.subject_id) for damage in found})
        several = f" {subjects} subjects are affected." if subjects > 1 else ""
        yield f"{shortened(found[-1].error, ROOM)} {found[-1].consequence}{several}"
