"""Data generation: batches of the curriculum's mix while too little waits, and batches of the rows of users' tasks.

Families, passes over users' rows, and a teacher's new rows have a lane each, so that none waits for another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ratchet.data.example import Provenance
from ratchet.evaluation.build_suites import held_out
from ratchet.events.catalogue import (
    BatchRejected,
    BatchStored,
    BatchSubmitted,
    ExamplesMined,
    QueueLow,
    TaskMeasured,
    TaskUsedUp,
    TrainingFinished,
    TrainingStarted,
)
from ratchet.ledger import Transaction
from ratchet.ledger.ledger import clock
from ratchet.ledger.queue import all_usage_counts, depth, low_mark, shortage, submit, supply
from ratchet.ledger.tables import BatchRow, CurriculumRow, DeadLetterRow, SuiteRow, VerdictRow
from ratchet.settings import Settings
from ratchet.settings.data import SourceSettings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from sqlalchemy import Integer, cast, func, select, union_all
from sqlalchemy.orm import Session

from datagen import task_refills, task_teacher
from datagen.batch_generation import (
    DEAD,
    EMPTY,
    BatchGeneration,
    FinishedRefill,
    GenerationReport,
    affordable_sources,
    allowed_examples,
    choose_source,
    pause_before_next_s,
)
from datagen.generators.generator import GenerationContext, Generator, make_generator
from datagen.mix import Assignment, Mix, Plan, first_plan
from datagen.spending import DAY_S, cost_of, recorder, used_since
from datagen.strategies import LearnerState, Mastery

NAME = "generation"
REPORT_EVERY = 1_000
REFILL = "refill"
"""Kind of the subject: a batch of families, by its number."""

HOUR_S = 3_600.0
REMEMBERED = 10
"""Newest refills that the pause before the next one depends on."""


def find(session: Session, settings: Settings) -> list[Subject]:
    """One more refill while too little waits for training and nothing forbids it."""
    is_set_up = session.scalar(select(SuiteRow.id).limit(1)) is not None and settings.suites.families
    if not is_set_up:
        return []
    found, queue = supply(session), settings.queue
    last = session.scalar(_verdicts(1))
    refilling = last is not None and bool(last.numbers.get("goes_on"))
    is_wanted = shortage(found, low_mark(settings), refilling=refilling) is not None
    if not is_wanted or found.examples + queue.batch_examples > queue.high_water:
        return []
    now = clock(session)
    if pause_before_next_s(_done(session, now), settings.generation.cooldown_s) > 0:
        return []
    room = allowed_examples(queue.batch_examples, _made_since(session, now - HOUR_S), settings.generation)
    if room == 0 or not _sources(session, settings, now):
        return []
    return [Subject(REFILL, str(number)) for number in _open_refills(session)]


def _sources(session: Session, settings: Settings, now: float) -> list[SourceSettings]:
    """The sources of families that are still below their daily tokens."""
    affordable = affordable_sources(settings.generation, used_since(session, now - DAY_S))
    return [source for source in affordable if not source.options.get("tasks")]


def _open_refills(session: Session) -> list[int]:
    """The number after the last one with a verdict or a dead letter; before it, dead letters that were retried."""
    verdicts = select(VerdictRow.subject_id).where(VerdictRow.system == NAME, VerdictRow.subject_kind == REFILL)
    dead = select(DeadLetterRow.subject_id).where(DeadLetterRow.system == NAME, DeadLetterRow.subject_kind == REFILL)
    retried = dead.where(DeadLetterRow.resolved_at.is_not(None), DeadLetterRow.subject_id.not_in(verdicts))
    numbers = union_all(verdicts, dead).subquery().c.subject_id
    last = session.scalar(select(func.max(cast(numbers, Integer)))) or 0
    return [*map(int, session.scalars(retried.distinct())), last + 1]


@dataclass(frozen=True)
class Job:
    """One batch to be made."""

    assignment: Assignment
    mix: Mix
    curriculum_id: int
    source: SourceSettings
    n: int
    seed: int
    used: dict[str, int]


def do(work: Work) -> Outcome:
    """Generate one batch, published as it streams, and submit it to the gate."""
    job, started = _job(work), time.monotonic()
    generator = make_generator(job.source.name, job.source.options)
    batch = BatchGeneration(
        generator,
        _context(work, job.source.name),
        [(share.family, share.level, share.weight) for share in job.mix.shares],
        job.n,
        job.seed,
        work.settings.queue.epoch_cap,
        lambda key: job.used.get(key, 0),
    )
    provenance = _provenance(job, generator)
    artifact = work.artifacts.publish_lines(_reported(work, batch), "batch", provenance)
    numbers = {
        **batch.report.model_dump(mode="json"),
        "cost": batch.report.cost | cost_of(work),
        "generator": job.source.name,
        "assignment": provenance["assignment"],
        "took_s": time.monotonic() - started,
    }
    if not batch.report.examples:
        return Verdict(EMPTY, f"{job.source.name} made no example: {_refusals(batch.report)}", numbers)
    numbers["goes_on"] = _goes_on(work, batch.report)
    return _submitted(artifact.id, batch.report, provenance, numbers)


def _job(work: Work) -> Job:
    settings, seed = work.settings, int(work.subject.id)
    with work.read() as session:
        now = clock(session)
        plan, curriculum_id = _plan(session, settings)
        room = settings.queue.high_water - depth(session).total
        sources = _sources(session, settings, now) or settings.generation.sources
        wanted = max(1, min(settings.queue.batch_examples, room))
        n = max(1, allowed_examples(wanted, _made_since(session, now - HOUR_S), settings.generation))
        used = all_usage_counts(session, at_least=_half(settings.queue.epoch_cap))
    assignment, mix = plan.draw(seed)
    return Job(assignment, mix, curriculum_id, choose_source(sources, seed), n, seed, used)


def _half(epoch_cap: int) -> int:
    """Number of uses from which an item's earlier uses are loaded, so that memory stays bounded.

    An item below it can be used as often again in this batch without passing the cap, unless it comes up in the batch
    more than half of the cap's times; the gate, which knows all uses, stops those.
    """
    return max(1, (epoch_cap + 1) // 2)


def _context(work: Work, generator: str) -> GenerationContext:
    settings = work.settings
    return GenerationContext(
        held_out(settings.suites),
        work.folder / "drafts",
        settings.generation.workers,
        settings.inference,
        work.child,
        work.progress,
        paid=recorder(work, generator),
    )


def _plan(session: Session, settings: Settings) -> tuple[Plan, int]:
    """The curriculum's newest plan; before its first, the favoured strategy's mix for a model that masters nothing."""
    newest = session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))
    if newest is not None:
        return Plan.stored(newest.experiment, newest.mixes), newest.id
    families = {family.name: family.levels for family in settings.suites.families}
    return first_plan(LearnerState(families, Mastery(), (), settings.curriculum)), 0


def _provenance(job: Job, generator: Generator) -> dict[str, Any]:
    """The part of the provenance that is known before the first example."""
    made_by = Provenance(
        generator=job.source.name,
        version=generator.version,
        seed=job.seed,
        parents=(f"curriculum:{job.curriculum_id}",),
    )
    return {
        **made_by.model_dump(mode="json"),
        "mix": {f"{share.family}/{share.level}": share.weight for share in job.mix.shares},
        "assignment": job.assignment.model_dump(mode="json"),
    }


def _reported(work: Work, batch: BatchGeneration) -> Iterator[str]:
    for number, line in enumerate(batch.lines(), start=1):
        if number % REPORT_EVERY == 0:
            work.progress(f"{number} examples")
        yield line


def _goes_on(work: Work, report: GenerationReport) -> bool:
    """Whether another batch follows at once; the low mark is higher while a refill lasts."""
    with work.read() as session:
        left = supply(session).with_more(report.examples)
    return shortage(left, low_mark(work.settings), refilling=True) is not None


def _submitted(
    artifact_id: str, report: GenerationReport, provenance: dict[str, Any], numbers: dict[str, Any]
) -> Verdict:
    origin = {**provenance, "counts": report.made, "exhausted": list(report.exhausted)}

    def effects(tx: Transaction) -> None:
        tx.emit(submit(tx, artifact_id, report.examples, "generation", origin))

    reason = f"{report.examples} examples of the {provenance['assignment']['arm']} mix, by {provenance['generator']}"
    if report.refused:
        reason += f"; refused: {_refusals(report)}"
    return Verdict("submitted", reason, numbers, effects)


def _refusals(report: GenerationReport) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in report.refused.items()) or "it drafted none"


def _verdicts(newest: int) -> Any:
    """So many verdicts on refills, the newest first. Their ids are found in an index; in a single query SQLite would
    sort the whole rows of all refills."""
    ids = select(VerdictRow.id).where(VerdictRow.system == NAME, VerdictRow.subject_kind == REFILL)
    found = VerdictRow.id.in_(ids.order_by(VerdictRow.id.desc()).limit(newest))
    return select(VerdictRow).where(found).order_by(VerdictRow.id.desc())


def _done(session: Session, now: float) -> list[FinishedRefill]:
    """The last finished refills, the newest first, including dead letters."""
    given = [FinishedRefill(row.outcome, now - row.created_at) for row in session.scalars(_verdicts(REMEMBERED))]
    letters = select(DeadLetterRow.created_at).where(
        DeadLetterRow.system == NAME, DeadLetterRow.subject_kind == REFILL, DeadLetterRow.resolved_at.is_(None)
    )
    dead = session.scalars(letters.order_by(DeadLetterRow.id.desc()).limit(REMEMBERED))
    return sorted([*given, *(FinishedRefill(DEAD, now - at) for at in dead)], key=lambda one: one.age_s)


def _made_since(session: Session, at: float) -> int:
    made = select(func.sum(BatchRow.submitted_examples)).where(BatchRow.origin == NAME, BatchRow.submitted_at >= at)
    rows = session.scalar(made.where(task_refills.made_of_rows())) or 0
    return (session.scalar(made) or 0) - rows


SYSTEM = System(
    name=NAME,
    host="4090",
    purpose="Makes batches of the curriculum's mix and of users' rows, and lets a teacher write more of these.",
    emits=(BatchSubmitted, TaskUsedUp),
    sweep_s=60.0,
    lanes=(
        Lane("generate", (QueueLow,), find, do, step_s=300.0),
        Lane(
            "pass",
            (BatchStored, BatchRejected, TrainingStarted, TrainingFinished, TaskMeasured, ExamplesMined),
            task_refills.find,
            task_refills.do,
            step_s=300.0,
        ),
        Lane("ask", (BatchStored, TaskMeasured), task_teacher.find, task_teacher.do, step_s=300.0),
    ),
    order=10,
)
