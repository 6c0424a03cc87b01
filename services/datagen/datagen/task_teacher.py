"""When a teacher is asked for new rows of a user's task, and what becomes of them: they are stored like the user's own.

A task is first passed over once. The teacher may then add rows, a part of the user's own at a time, up to a multiple of
them. A teacher that writes nothing usable several times is not asked for that task again.
"""

from __future__ import annotations

from itertools import islice, takewhile
from random import Random
from typing import TYPE_CHECKING, Final

from ratchet.data.example import Example, Provenance
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS
from ratchet.ledger import Transaction
from ratchet.ledger.ledger import clock
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.queue import GATE, submit
from ratchet.ledger.suites import current
from ratchet.ledger.tables import BatchRow, DeadLetterRow, SuiteRow, TaskRow, VerdictRow
from ratchet.settings import Settings
from ratchet.settings.data import SourceSettings
from ratchet.systems import Outcome, Subject, Verdict, Work
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.supply import stored_batches, stored_rows
from ratchet.user_tasks.task import Task, all_tasks
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from datagen.batch_generation import EMPTY, FinishedRefill, affordable_sources, pause_before_next_s
from datagen.generators.generator import GenerationContext, make_generator
from datagen.spending import DAY_S, cost_of, recorder, used_since

if TYPE_CHECKING:
    from datagen.generators.teacher import Teacher

NAME: Final = "generation"
ASK = "ask"
"""Kind of the subject: a request for rows of a task, as ``menus/3``."""

TEACHER: Final = "teacher"

MOST_TIMES: Final = {"accuracy": 3.0, "loss": 1.0, "judge": 1.0}
"""Rows of the teacher, in multiples of the user's own. Unverified ones are fewer, so that the user's style prevails."""

ASKED_SHARE, FEWEST, MOST = 0.5, 32, 500
"""Rows asked for at a time: this share of the user's own, within these bounds."""

REPORT_EVERY = 5_000
SEEDS = 2_000
"""Most rows that examples for the teacher are drawn from."""

EMPTY_HANDED = 3
"""Requests in a row without a usable row after which the teacher is not asked for that task again."""


def teacher_of(settings: Settings, task: str) -> SourceSettings | None:
    """The source that writes rows for the task, if one is configured."""
    named = (source for source in settings.generation.sources if source.name == TEACHER)
    return next((source for source in named if task in source.options.get("tasks", ())), None)


def can_teacher_go_on(session: Session, settings: Settings, task: TaskRow) -> bool:
    """Whether a teacher will write more rows for the task, today or later, without help from an operator."""
    source = teacher_of(settings, task.name)
    if source is None or _room(session, task) <= 0 or _is_given_up(session, task.name):
        return False
    given = list(session.scalars(_verdicts(task.name).limit(EMPTY_HANDED)))
    model = source.options.get("model")
    empty = list(takewhile(lambda row: row.outcome == EMPTY and row.numbers.get("model") == model, given))
    return len(empty) < EMPTY_HANDED


def find(session: Session, settings: Settings) -> list[Subject]:
    """A request for each task that may have more rows, unless its last rows are still to be taught."""
    if session.scalar(select(SuiteRow.id).limit(1)) is None:
        return []
    return [
        Subject(ASK, f"{task.name}/{_asked(session, task.name) + 1}")
        for task in all_tasks(session, "user")
        if teacher_of(settings, task.name) is not None and _is_wanted(session, settings, task)
    ]


def _is_wanted(session: Session, settings: Settings, task: TaskRow) -> bool:
    if task.passes < 1 or _is_at_gate(session, task.name) or not can_teacher_go_on(session, settings, task):
        return False
    now = clock(session)
    done = [FinishedRefill(row.outcome, now - row.created_at) for row in session.scalars(_verdicts(task.name).limit(9))]
    is_affordable = any(
        source.name == TEACHER for source in affordable_sources(settings.generation, used_since(session, now - DAY_S))
    )
    return is_affordable and pause_before_next_s(done, settings.generation.cooldown_s) <= 0


def do(work: Work) -> Outcome:
    """Ask for rows, and submit them to the data gate as rows of the task."""
    # A command that lists the systems imports this module, and needs no HTTP client.
    from datagen.generators.task_rows import Asked, new_rows, seeds_of
    from datagen.generators.teacher import Teacher

    name = work.subject.id.rpartition("/")[0]
    source = teacher_of(work.settings, name)
    with work.read() as session:
        row = session.get_one(TaskRow, name)
        task, room, batches = Task.of(row), _room(session, row), stored_batches(session, name)
        keys = [key for pool in POOLS for key in load_suite(work.artifacts, current(session, pool)).keys]
    if source is None or room <= 0:
        return Verdict("not wanted", f"{name} has no teacher any more, or enough rows of it")
    teacher = make_generator(source.name, source.options)
    assert isinstance(teacher, Teacher), "the source of that name"
    seeds = seeds_of(list(islice(stored_rows(work.artifacts, batches), SEEDS)))
    Random(work.subject.id).shuffle(seeds)
    known = set()
    for number, each in enumerate(stored_rows(work.artifacts, batches)):
        if number % REPORT_EVERY == 0:
            work.progress(f"{number} rows of {name}")
        known.add(text_key(each))
    context = GenerationContext(
        frozenset(keys),
        work.folder / "drafts",
        inference=work.settings.inference,
        progress=work.progress,
        paid=recorder(work, source.name),
    )
    asked = Asked(seeds, room, _seed(work), task.labelled, task.metric == "accuracy", known)
    return _submitted(work, task, list(new_rows(teacher, asked, context)), teacher, context)


def _submitted(work: Work, task: Task, rows: list[Example], teacher: Teacher, context: GenerationContext) -> Verdict:
    refused = dict(sorted(context.tally.refused.items()))
    numbers = {
        "made": {f"{task.name}/1": len(rows)} if rows else {},
        "refused": refused,
        "cost": cost_of(work),
        "generator": TEACHER,
        "model": teacher.model,
    }
    words = ", ".join(f"{count} {reason}" for reason, count in refused.items())
    if not rows:
        return Verdict(
            EMPTY, f"{teacher.model} wrote no usable row for {task.name}: {words or 'it proposed none'}", numbers
        )
    provenance = Provenance(
        generator=TEACHER, version=teacher.version, seed=_seed(work), counts={f"{task.name}/1": len(rows)}
    ).model_dump(mode="json")
    artifact = work.artifacts.publish_lines((row.to_line() for row in rows), "batch", provenance)

    def effects(tx: Transaction) -> None:
        if tx.session.get(BatchRow, artifact.id[:16]) is None:
            tx.emit(submit(tx, artifact.id, len(rows), NAME, provenance, task=task.name))

    reason = f"{len(rows)} new rows for {task.name} by {teacher.model}" + (f"; refused: {words}" if words else "")
    return Verdict("submitted", reason, numbers, effects)


def _seed(work: Work) -> int:
    return int(work.subject.id.rpartition("/")[2])


def _room(session: Session, task: TaskRow) -> int:
    """How many rows the teacher is asked for next; 0 where the task has enough of it."""
    stored = stored_batches(session, task.name)
    written = sum(batch.examples for batch in stored if batch.origin == NAME)
    own = sum(batch.examples for batch in stored) - written
    left = int(MOST_TIMES[task.metric] * own) - written
    return max(0, min(left, MOST, max(FEWEST, int(ASKED_SHARE * own)))) if own else 0


def _is_at_gate(session: Session, task: str) -> bool:
    waiting = select(BatchRow.id).where(
        BatchRow.task == task, BatchRow.state == "submitted", lacks_verdict(GATE, "batch", BatchRow.id)
    )
    return session.scalar(waiting.limit(1)) is not None


def _verdicts(task: str) -> Select[VerdictRow]:
    """Verdicts on the requests for a task, the newest first."""
    query = select(VerdictRow).where(VerdictRow.system == NAME, VerdictRow.subject_kind == ASK)
    return query.where(VerdictRow.subject_id.startswith(f"{task}/", autoescape=True)).order_by(VerdictRow.id.desc())


def _asked(session: Session, task: str) -> int:
    """Requests for the task that have been decided."""
    return session.scalar(select(func.count()).select_from(_verdicts(task).order_by(None).subquery())) or 0


def _is_given_up(session: Session, task: str) -> bool:
    """Whether a request for the task is an open dead letter, which is asked again once it is resolved."""
    letters = select(DeadLetterRow.id).where(
        DeadLetterRow.system == NAME, DeadLetterRow.subject_kind == ASK, DeadLetterRow.resolved_at.is_(None)
    )
    ours = DeadLetterRow.subject_id.startswith(f"{task}/", autoescape=True)
    return session.scalar(letters.where(ours).limit(1)) is not None
