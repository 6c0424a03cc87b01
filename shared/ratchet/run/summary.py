"""What a run has achieved: its completed cycles, and the closing summary of what was trained and deployed, and why.

A cycle is a trained checkpoint that has all its verdicts (``System.per_checkpoint``), and that no newer one superseded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.evaluation.record import LevelRates, Metric, Rate, TaskScore, rates_from_json
from ratchet.ledger.pending import QUERIES
from ratchet.ledger.suites import unanswered_requests, undecided
from ratchet.ledger.tables import (
    BatchRow,
    CheckpointRow,
    DeadLetterRow,
    DeploymentRow,
    EvaluationRow,
    MinedRow,
    ServingRow,
    VerdictRow,
)
from ratchet.systems import registry
from ratchet.user_tasks.task import Task, all_tasks

DECIDER = "deployment"
"""Its verdict is the outcome of a cycle; the other systems' verdicts come before it."""

SUPERSEDED = "superseded"

_ACTIONS = {"deploy": "deployed", "rollback": "rolled back to"}


@dataclass(frozen=True)
class CompletedCycle:
    """A checkpoint on which all systems decided. ``judged_at`` is the time of the last verdict but the deployer's."""

    checkpoint_id: str
    ordinal: int
    outcome: str
    judged_at: float


def completed_cycles(session: Session) -> list[CompletedCycle]:
    """All complete cycles, in the order of the checkpoints. The base model is not a cycle.

    A dead letter counts as a verdict here, since the system has given the checkpoint up until an operator retries it. A
    checkpoint that testing found broken gets no other verdicts. One that a newer one superseded, before it was tested
    or while the server was busy with another, is no cycle: nothing was decided about it.
    """
    return [cycle for cycle in _judged(session) if cycle.outcome != SUPERSEDED]


def _judged(session: Session) -> list[CompletedCycle]:
    """The complete cycles, and the checkpoints that were superseded with the verdicts of all judges."""
    trained = session.execute(
        select(CheckpointRow.id, CheckpointRow.ordinal, CheckpointRow.state)
        .where(CheckpointRow.ordinal > 0)
        .order_by(CheckpointRow.ordinal)
    ).all()
    systems = registry.per_checkpoint(session)
    verdicts = _verdicts(session, systems)
    found = (_cycle(id_, ordinal, state, verdicts.get(id_, {}), systems) for id_, ordinal, state in trained)
    return [cycle for cycle in found if cycle is not None]


def has_undecided(session: Session) -> bool:
    """Whether a trained checkpoint waits for the deployer: not decided on, and tested on the current suites or about to
    be."""
    tested = QUERIES["eval records of trained checkpoints"](DECIDER)
    requested = {request.checkpoint_id for request in session.scalars(unanswered_requests())}
    return session.scalar(tested.limit(1)) is not None or not requested.isdisjoint(undecided(session))


def _verdicts(session: Session, systems: Sequence[str]) -> dict[str, dict[str, tuple[str, float]]]:
    """Outcome and time of the verdict or dead letter, by checkpoint and system."""
    found: dict[str, dict[str, tuple[str, float]]] = {}
    letters = select(DeadLetterRow.subject_id, DeadLetterRow.system, DeadLetterRow.created_at).where(
        DeadLetterRow.subject_kind == "checkpoint", DeadLetterRow.resolved_at.is_(None)
    )
    for checkpoint_id, system, at in session.execute(letters):
        found.setdefault(checkpoint_id, {})[system] = ("dead", at)
    verdicts = select(VerdictRow.subject_id, VerdictRow.system, VerdictRow.outcome, VerdictRow.created_at).where(
        VerdictRow.subject_kind == "checkpoint", VerdictRow.system.in_(systems)
    )
    for checkpoint_id, system, outcome, at in session.execute(verdicts):
        found.setdefault(checkpoint_id, {})[system] = (outcome, at)
    return found


def _cycle(
    checkpoint_id: str, ordinal: int, state: str, verdicts: dict[str, tuple[str, float]], systems: Sequence[str]
) -> CompletedCycle | None:
    given = {system: verdicts[system] for system in systems if system in verdicts}
    testing = given.get("testing", ("", 0.0))[0]
    if testing == "dead" or (testing and state == "broken"):
        return CompletedCycle(checkpoint_id, ordinal, testing, given["testing"][1])
    if len(given) < len(systems) or DECIDER not in given:
        return None
    judged_at = max(at for system, (_, at) in given.items() if system != DECIDER)
    return CompletedCycle(checkpoint_id, ordinal, given[DECIDER][0], judged_at)


@dataclass(frozen=True)
class Change:
    """One change of what is live."""

    action: str
    ordinal: int
    previous: int | None
    reason: str
    after_s: float


@dataclass(frozen=True)
class TaskResult:
    """A task's score of the base model and of the live one, as text with its unit; None where it was not measured."""

    task: str
    metric: Metric
    base: str | None
    live: str | None

    def sentence(self, live: int) -> str:
        """``menus: 41% right (base model: 12%)``."""
        scored = f"{self.task}: {self.live or 'not measured'}"
        return scored if live == 0 else f"{scored} (base model: {self.base or 'not measured'})"


@dataclass(frozen=True)
class Summary:
    """Times are seconds since the run began; counts are those of the run, except ``dead``, which is all open ones."""

    ran_s: float
    cycles: tuple[CompletedCycle, ...]
    superseded: int
    live: int | None
    live_levels: LevelRates
    tasks: tuple[TaskResult, ...]
    changes: tuple[Change, ...]
    mined: int
    trained: int
    corrections: int
    dead: int
    first_judged_s: float | None
    first_deployed_s: float | None


def summarize(session: Session, since: float, now: float, done_before: frozenset[str]) -> Summary:
    """The summary of a run that began at ``since``, when the cycles in ``done_before`` were already complete."""
    judged = [cycle for cycle in _judged(session) if cycle.checkpoint_id not in done_before]
    cycles = tuple(cycle for cycle in judged if cycle.outcome != SUPERSEDED)
    superseded = [cycle for cycle in judged if cycle.outcome == SUPERSEDED and cycle.judged_at >= since]
    changes = read_changes(session, since)
    serving = session.scalar(select(ServingRow).limit(1))
    live = session.get(CheckpointRow, serving.desired_id) if serving else None
    levels = _levels(session, live.id) if live else {}
    trained, corrections = _trained(session, since)
    promoted = [c.after_s for c in changes if c.ordinal > 0 and c.action == "deploy"]
    return Summary(
        ran_s=now - since,
        cycles=cycles,
        superseded=len(superseded),
        live=live.ordinal if live else None,
        live_levels=levels,
        tasks=_task_results(session, live.id, levels) if live else (),
        changes=changes,
        mined=_count(session, select(func.sum(MinedRow.count)).where(MinedRow.created_at >= since)),
        trained=trained,
        corrections=corrections,
        dead=_count(
            session, select(func.count()).select_from(DeadLetterRow).where(DeadLetterRow.resolved_at.is_(None))
        ),
        first_judged_s=min(first) - since if (first := [c.judged_at for c in (*cycles, *superseded)]) else None,
        first_deployed_s=promoted[0] if promoted else None,
    )


def render(summary: Summary, endpoint: str, alias: str) -> str:
    """The summary as plain text."""
    lines = [
        f"{len(summary.cycles)} checkpoint{_s(len(summary.cycles))} trained, judged and decided in "
        f"{_time(summary.ran_s)}{_more(summary.superseded)}."
    ]
    if summary.live is not None:
        own = {result.task for result in summary.tasks}
        taught = {cell: rate for cell, rate in summary.live_levels.items() if cell[0] not in own}
        lines.append(f"Live is #{summary.live}; {'right answers' if not own else 'held-out rows'} on the eval suite:")
        lines += [f"  {result.sentence(summary.live)}" for result in summary.tasks]
        if taught or not own:
            lines += _rates(taught)
            lines += [f"  level 1 over all families: {rate.value:.0%}" for rate in _first_level(taught)]
    lines += [_change(change) for change in summary.changes]
    lines.append(
        f"Trained on {summary.trained:,} examples, {summary.corrections:,} of them corrections of its own mistakes; "
        f"{summary.mined:,} weak items were mined."
    )
    lines.append(
        f"First checkpoint deployed over another after {_time(summary.first_deployed_s)}, "
        f"first one with the verdicts of all judges after {_time(summary.first_judged_s)}."
    )
    lines.append(
        "No dead letters."
        if not summary.dead
        else f"{summary.dead} dead letter{_s(summary.dead)}: `ratchet dead list` has them."
    )
    lines.append(
        f"`ratchet run` continues from here and serves model {alias!r} at {endpoint}/v1; `ratchet show leaderboard` "
        "ranks the checkpoints, `ratchet why champion` explains the decision."
    )
    return "\n".join(lines)


def _more(superseded: int) -> str:
    return f"; {superseded} more superseded by newer ones" if superseded else ""


def read_changes(session: Session, since: float) -> tuple[Change, ...]:
    """What went live since then, in order."""
    query = select(DeploymentRow).where(DeploymentRow.created_at >= since, DeploymentRow.action.in_(_ACTIONS))
    query = query.order_by(DeploymentRow.id)
    return tuple(
        Change(
            row.action,
            _ordinal(session, row.checkpoint_id) or 0,
            _ordinal(session, row.previous_id) if row.previous_id else None,
            " ".join(row.reason.split()),
            row.created_at - since,
        )
        for row in session.scalars(query)
    )


def _ordinal(session: Session, checkpoint_id: str) -> int | None:
    return session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == checkpoint_id))


def _levels(session: Session, checkpoint_id: str) -> LevelRates:
    row = _newest_eval(session, checkpoint_id)
    return rates_from_json(row.by_level) if row else {}


def _task_results(session: Session, live_id: str, live: LevelRates) -> tuple[TaskResult, ...]:
    base_id = session.scalar(select(CheckpointRow.id).where(CheckpointRow.ordinal == 0))
    base = _levels(session, base_id) if base_id else {}
    of_base, of_live = (_scores(session, id) for id in (base_id, live_id))
    return tuple(
        TaskResult(
            row.name,
            Task.of(row).metric,
            _shown(base.get((row.name, 1)), of_base.get(row.name)),
            _shown(live.get((row.name, 1)), of_live.get(row.name)),
        )
        for row in all_tasks(session, "user")
    )


def _scores(session: Session, checkpoint_id: str | None) -> dict[str, TaskScore]:
    row = _newest_eval(session, checkpoint_id)
    stored = row.scores if row is not None else None
    return {family: TaskScore.model_validate(score) for family, score in (stored or {}).items()}


def _shown(rate: Rate | None, score: TaskScore | None) -> str | None:
    if score is not None:
        unit = "nats a token" if score.metric == "loss" else "preferred"
        return f"{score.mean:.2f} {unit}" if score.metric == "loss" else f"{score.mean:.0%} {unit}"
    return f"{rate.value:.0%} right" if rate is not None else None


def _newest_eval(session: Session, checkpoint_id: str | None) -> EvaluationRow | None:
    query = select(EvaluationRow).where(EvaluationRow.checkpoint_id == checkpoint_id, EvaluationRow.pool == "eval")
    return session.scalar(query.order_by(EvaluationRow.created_at.desc()).limit(1))


def _trained(session: Session, since: float) -> tuple[int, int]:
    """Examples of the batches that were in training or ended since then, and how many of them were corrections."""
    query = select(BatchRow).where(
        BatchRow.offset > 0, (BatchRow.finished_at >= since) | BatchRow.finished_at.is_(None)
    )
    trained = corrections = 0
    for batch in session.scalars(query):
        trained += batch.offset
        made = dict(batch.provenance.get("counts") or {}).get("corrections", 0)
        corrections += round(int(made) * batch.offset / max(batch.examples, batch.offset))
    return trained, corrections


def _count(session: Session, query: object) -> int:
    return int(session.scalar(query) or 0)  # type: ignore[call-overload]


def _rates(levels: LevelRates) -> list[str]:
    """A line a family: ``  chain_sum    level 1 98 %, level 2 94 %``."""
    families: dict[str, list[str]] = {}
    for (family, level), rate in sorted(levels.items()):
        families.setdefault(family, []).append(f"level {level} {100 * rate.value:.0f} %")
    width = max(map(len, families), default=0)
    return [f"  {family:<{width}}  {', '.join(rates)}" for family, rates in families.items()] or ["  nothing yet"]


def _first_level(levels: LevelRates) -> list[Rate]:
    """The easiest level over all families; empty if nothing was evaluated."""
    rates = [rate for (_, level), rate in levels.items() if level == 1]
    return [Rate(correct=sum(r.correct for r in rates), n=sum(r.n for r in rates))] if rates else []


def _change(change: Change) -> str:
    over = f" over #{change.previous}" if change.previous is not None else ""
    return f"  after {_time(change.after_s)}: {_ACTIONS[change.action]} #{change.ordinal}{over}: {change.reason}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "(not yet)"
    return f"{seconds:.0f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
