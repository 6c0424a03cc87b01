"""Batches of the rows that users have given, made while a task still gains from them; and the end of a task.

At most one such batch waits while another is trained, and none is made far ahead of the measured checkpoints, since
passes must end when they no longer help. Which rows a batch holds is decided in rows_batch.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example, Provenance
from ratchet.errors import PreconditionFailed
from ratchet.events.catalogue import TaskUsedUp
from ratchet.leases.gpus import training_processes
from ratchet.ledger import Transaction
from ratchet.ledger.lineage import newest_evaluated
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.queue import GATE, TRAINER, submit, supply
from ratchet.ledger.tables import (
    BatchRow,
    CheckpointRow,
    EvaluationRow,
    MinedRow,
    SuiteRow,
    TaskRow,
    VerdictRow,
)
from ratchet.settings import Settings
from ratchet.systems import NotReady, Outcome, Subject, Verdict, Work
from ratchet.user_tasks.general import REPLAY
from ratchet.user_tasks.supply import (
    ACTIVE,
    USED_UP,
    corrections_over,
    count_stored,
    passes_over,
    stored_batches,
    stored_lines,
)
from ratchet.user_tasks.task import Task, all_tasks
from sqlalchemy import ColumnElement, Integer, and_, cast, exists, func, not_, or_, select
from sqlalchemy.orm import Session

from datagen.rows_batch import Drawn, RowBudget, RowPool, RowsPlan, plan_rows
from datagen.task_teacher import can_teacher_go_on, teacher_of

NAME: Final = "generation"
ROWS = "rows"
"""The generator in the provenance of a batch of users' rows."""

FAMILIES = "families"
"""The pool of the newest batch of families, for replay; it is no name of a task."""

PASS, END = "pass", "end"
"""Kinds of subjects: the next batch of rows, by its number; a task that may be used up."""

AHEAD = 2
"""Batches of rows whose checkpoints are not measured yet, at most: the one in training and the next."""

FIRST_ROWS = 1_000
"""Most rows of a batch before the speed of training is known."""


@dataclass(frozen=True)
class Source:
    """Rows that a batch draws from: the batches that hold them, or one artifact; ``task`` labels them."""

    pool: RowPool
    batches: tuple[BatchRow, ...] = ()
    artifact: str | None = None
    task: Task | None = None

    def lines(self, artifacts: ArtifactStore) -> Iterator[str]:
        return artifacts.open_lines(self.artifact) if self.artifact else stored_lines(artifacts, self.batches)


def made_of_rows() -> ColumnElement[bool]:
    """An SQL condition: batches of users' rows."""
    return and_(BatchRow.origin == NAME, BatchRow.provenance["generator"].as_string() == ROWS)


def _is_made_of_rows(batch: BatchRow) -> bool:
    return batch.origin == NAME and batch.provenance.get("generator") == ROWS


def find(session: Session, settings: Settings) -> list[Subject]:
    """The next batch of rows if one is wanted, then tasks that may be used up."""
    tasks = [task for task in all_tasks(session, "user") if task.state == ACTIVE]
    if not tasks or session.scalar(select(SuiteRow.id).limit(1)) is None:
        return []
    found = [Subject(PASS, str(_next_number(session)))] if _is_wanted(session, tasks) else []
    ends = [_end_subject(session, task) for task in tasks if _why_used_up(session, settings, task)]
    return [*found, *ends]


def do(work: Work) -> Outcome:
    return _end(work) if work.subject.kind == END else _compose(work)


def _is_wanted(session: Session, tasks: Sequence[TaskRow]) -> bool:
    """Whether a task is to be taught, no batch of rows waits for training, and training is not far ahead of judging.

    A new task does not wait for the others.
    """
    taught = [task for task in tasks if passes_over(task) is None and count_stored(session, task.name)]
    if any(_is_new(task) for task in taught):
        return True
    open_batches = _open_batches(session, _is_made_of_rows)
    is_waiting = any(batch.state in ("submitted", "queued") for batch in open_batches)
    return bool(taught) and not is_waiting and len(open_batches) < AHEAD


def _is_new(task: TaskRow) -> bool:
    """Whether none of its rows has been in a batch yet."""
    return task.passes == 0 and task.best_id is None


def _open_batches(session: Session, which: Callable[[BatchRow], bool]) -> list[BatchRow]:
    """Batches that wait, are in training, or are trained and not measured yet.

    These are few, and found by indexes. Which of them are meant is not asked in SQL: SQLite would look through all
    batches of their origin.
    """
    waits = and_(BatchRow.state == "submitted", lacks_verdict(GATE, "batch", BatchRow.id))
    trains = and_(BatchRow.state.in_(("queued", "training")), lacks_verdict(TRAINER, "batch", BatchRow.id))
    ids = [id for state in (waits, trains) for id in session.scalars(select(BatchRow.id).where(state))]
    newer = select(CheckpointRow.batch_id).where(CheckpointRow.ordinal > _measured_ordinal(session))
    saved_from = select(BatchRow.id, BatchRow.state).where(BatchRow.id.in_(list(session.scalars(newer.distinct()))))
    ids += [id for id, state in session.execute(saved_from) if state == "trained"]
    return [batch for batch in session.scalars(select(BatchRow).where(BatchRow.id.in_(ids))) if which(batch)]


def _measured_ordinal(session: Session) -> int:
    """The newest checkpoint that the curriculum has measured, or that it will never measure."""
    is_recorded = exists().where(EvaluationRow.checkpoint_id == CheckpointRow.id, EvaluationRow.pool == "probe")
    is_settled = or_(
        not_(lacks_verdict("curriculum", "checkpoint", CheckpointRow.id)),
        and_(not_(lacks_verdict("testing", "checkpoint", CheckpointRow.id)), not_(is_recorded)),
        CheckpointRow.state == "broken",
    )
    return session.scalar(select(func.max(CheckpointRow.ordinal)).where(is_settled)) or 0


def _next_number(session: Session) -> int:
    """The number after the last one with a verdict. As a dead letter it holds the passes up until it is retried, since
    the next one would fail in the same way."""
    last = select(func.max(cast(VerdictRow.subject_id, Integer)))
    return (session.scalar(last.where(VerdictRow.system == NAME, VerdictRow.subject_kind == PASS)) or 0) + 1


def _compose(work: Work) -> Outcome:
    """One batch of passes and replay, published and submitted to the gate."""
    started, settings, seed = time.monotonic(), work.settings, int(work.subject.id)
    with work.read() as session:
        tasks = [task for task in all_tasks(session, "user") if task.state == ACTIVE]
        if not _is_wanted(session, tasks):
            return NotReady("training or judging of the batches before")
        taught, replayed = _sources(session, settings)
        names = {source.pool.name for source in taught}
        is_first = any(_is_new(task) for task in tasks if task.name in names)
        budget = _budget(session, settings, taught)
    plan = plan_rows(
        [source.pool for source in taught],
        [source.pool for source in replayed],
        budget,
        settings.generation.replay_share,
        seed,
    )
    rows = _collected(work, plan, [*taught, *replayed])
    provenance = _provenance(plan, [*taught, *replayed], seed)
    artifact = work.artifacts.publish_lines((rows[drawn] for drawn in plan.rows), "batch", provenance)

    def effects(tx: Transaction) -> None:
        tx.emit(submit(tx, artifact.id, len(plan.rows), NAME, provenance, "high" if is_first else "normal"))
        for name, told in provenance["tasks"].items():
            task = tx.session.get_one(TaskRow, name)
            task.passes += told["rows"] / told["of"]

    numbers = {
        "made": provenance["counts"],
        "generator": ROWS,
        "replay": provenance["replay"],
        "took_s": time.monotonic() - started,
    }
    return Verdict("submitted", _words(plan), numbers, effects)


def _sources(session: Session, settings: Settings) -> tuple[list[Source], list[Source]]:
    """What is taught, and what is replayed beside it: general rows, tasks whose passes are over, and families."""
    taught: list[Source] = []
    replayed: list[Source] = []
    for row in all_tasks(session, "general"):
        artifact = row.held_out.get(REPLAY)
        if artifact:
            pool = RowPool(row.name, row.rows - row.held_rows)
            replayed.append(Source(pool, artifact=artifact, task=Task.of(row)))
    for row in all_tasks(session, "user"):
        batches = tuple(stored_batches(session, row.name))
        pool = RowPool(row.name, sum(batch.examples for batch in batches), row.passes)
        if pool.rows:
            is_taught = row.state == ACTIVE and passes_over(row) is None
            (taught if is_taught else replayed).append(Source(pool, batches, task=Task.of(row)))
    newest = _newest_of_families(session) if settings.suites.families else None
    if newest is not None:
        replayed.append(Source(RowPool(FAMILIES, newest.examples), (newest,)))
    return taught, replayed


def _newest_of_families(session: Session) -> BatchRow | None:
    query = select(BatchRow).where(BatchRow.origin == NAME, BatchRow.artifact.is_not(None), BatchRow.task.is_(None))
    return session.scalar(query.where(not_(made_of_rows())).order_by(BatchRow.queued_at.desc()).limit(1))


def _budget(session: Session, settings: Settings, taught: Sequence[Source]) -> RowBudget:
    """At least enough rows for a few optimizer steps, at most a segment's time at the measured speed."""
    hyperparams = settings.hyperparams
    per_step = hyperparams.batch_size * hyperparams.gradient_accumulation * training_processes(settings)
    speed, most = supply(session).tokens_per_s, FIRST_ROWS
    if speed is not None:
        batches = [batch for source in taught for batch in source.batches]
        tokens = sum(batch.tokens for batch in batches) / max(1, sum(batch.examples for batch in batches))
        most = int(speed * hyperparams.segment_max_s / max(1.0, tokens * hyperparams.num_epochs))
    return RowBudget.of(per_step, hyperparams.num_epochs, min(most, settings.queue.batch_examples))


def _collected(work: Work, plan: RowsPlan, sources: Sequence[Source]) -> dict[Drawn, str]:
    """The line of every drawn row, with the number of its pass; a pool is read once and not kept."""
    found: dict[Drawn, str] = {}
    for source in sources:
        wanted: dict[int, list[Drawn]] = {}
        for drawn in plan.rows:
            if drawn.pool == source.pool.name:
                wanted.setdefault(drawn.place, []).append(drawn)
        if not wanted:
            continue
        for place, line in enumerate(source.lines(work.artifacts)):
            for drawn in wanted.get(place, ()):
                found[drawn] = _labelled(line, source.task, drawn.number)
        work.progress(f"{len(found)} of {len(plan.rows)} rows")
    missing = len(plan.rows) - len(found)
    if missing:
        raise PreconditionFailed(f"{missing} rows of {', '.join(s.pool.name for s in sources)} are not in their files.")
    return found


def _labelled(line: str, task: Task | None, number: int) -> str:
    """The row as its task is graded now. The number of its pass makes two passes over the same rows differ."""
    example = Example.model_validate_json(line)
    if task is not None:
        example = task.labelled(example)
    if number:
        example = example.model_copy(update={"metadata": {**example.metadata, "pass": number}})
    return example.to_line()


def _provenance(plan: RowsPlan, sources: Sequence[Source], seed: int) -> dict[str, Any]:
    pools = {source.pool.name: source for source in sources}
    parents = tuple(batch.id for name in (*plan.taught, *plan.replayed) for batch in pools[name].batches)
    made = Provenance(
        generator=ROWS,
        version="1",
        seed=seed,
        parents=parents,
        counts={f"{name}/1": count for name, count in {**plan.replayed, **plan.taught}.items() if name != FAMILIES},
    )
    tasks = {
        name: {
            "rows": count,
            "of": pools[name].pool.rows,
            "pass": pools[name].pool.passes + count / pools[name].pool.rows,
        }
        for name, count in plan.taught.items()
    }
    return {**made.model_dump(mode="json"), "tasks": tasks, "replay": dict(plan.replayed)}


def _words(plan: RowsPlan) -> str:
    passes = {name: {row.number for row in plan.rows if row.pool == name} for name in plan.taught}
    told = [f"{count} rows of {name}, pass {_range(passes[name])}" for name, count in sorted(plan.taught.items())]
    replayed = [f"{count} of {name} replayed" for name, count in sorted(plan.replayed.items())]
    return "; ".join([*told, *replayed])


def _range(numbers: set[int]) -> str:
    first, last = min(numbers), max(numbers)
    return str(first) if first == last else f"{first} to {last}"


def _end_subject(session: Session, task: TaskRow) -> Subject:
    """The end of what has been stored so far; more rows make another subject, and so does another way of judging."""
    return Subject(END, f"{task.name}/{count_stored(session, task.name)}/{task.version}")


def _why_used_up(session: Session, settings: Settings, task: TaskRow) -> str | None:
    """Why nothing that can be made of the task's rows helps any more; None while something may."""
    at_gate = select(BatchRow.id).where(
        BatchRow.task == task.name, BatchRow.state == "submitted", lacks_verdict(GATE, "batch", BatchRow.id)
    )
    if session.scalar(at_gate.limit(1)) is not None:
        return None
    if not count_stored(session, task.name):
        return _why_without_rows(session, task.name)
    over = passes_over(task)
    if over is None or can_teacher_go_on(session, settings, task):
        return None
    if _open_batches(session, lambda batch: batch.origin == "correction" or _is_made_of_rows(batch)):
        return None
    if not corrections_over(task) and not _is_correction_settled(session):
        return None
    return f"{over}, and corrections make nothing new"


def _why_without_rows(session: Session, task: str) -> str:
    """Why a task has no row to train on: what the data gate said last, or that its batches were skipped."""
    of_task = select(BatchRow.id).where(BatchRow.task == task)
    said = select(VerdictRow.reason).where(
        VerdictRow.system == GATE, VerdictRow.subject_kind == "batch", VerdictRow.subject_id.in_(of_task)
    )
    return session.scalar(said.order_by(VerdictRow.id.desc()).limit(1)) or "none of its rows was stored"


def _is_correction_settled(session: Session) -> bool:
    """Whether mining and correction are done with the newest measured checkpoint."""
    newest = newest_evaluated(session, "probe")
    if newest is None:
        return True
    unmined = select(CheckpointRow.id).where(
        CheckpointRow.id == newest.id, lacks_verdict("mining", "checkpoint", CheckpointRow.id)
    )
    uncorrected = select(MinedRow.checkpoint_id).where(
        MinedRow.checkpoint_id == newest.id,
        MinedRow.artifact.is_not(None),
        lacks_verdict("correction", "mined", MinedRow.checkpoint_id),
    )
    return session.scalar(unmined) is None and session.scalar(uncorrected) is None


def _end(work: Work) -> Outcome:
    """The task is used up, unless something has been added meanwhile."""
    name = work.subject.id.partition("/")[0]
    with work.read() as session:
        task = session.get_one(TaskRow, name)
        why = _why_used_up(session, work.settings, task)
        has_rows = count_stored(session, name) > 0
        is_same = _end_subject(session, task) == work.subject
    if why is None or not is_same:
        return NotReady(f"what is left of {name}")
    add = f"Add rows: `ratchet data add FILE --task {name}`"
    if not has_rows:
        reason = f"{why}. {add}."
    elif teacher_of(work.settings, name) is None:
        reason = f"{why}. {add}, or a teacher that writes some: generation.sources."
    else:
        reason = f"{why}, nor does its teacher write more. {add}."

    def effects(tx: Transaction) -> None:
        row = tx.session.get_one(TaskRow, name)
        row.state, row.reason, row.updated_at = USED_UP, reason, tx.now

    return Verdict("used up", reason, {"passes": task.passes}, effects, (TaskUsedUp(task=name, reason=reason),))
