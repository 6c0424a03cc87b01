"""Self-correction loop: the gate before the queue, and lessons from what mining found.

The gate has a lane of its own, so that data never waits behind the making of lessons.
"""

from __future__ import annotations

from itertools import islice

from ratchet.data.batch import Provenance
from ratchet.evaluation.standing import held_out
from ratchet.events.catalogue import BatchQueued, BatchRejected, BatchSubmitted, ExamplesMined
from ratchet.ledger import Transaction
from ratchet.ledger.queue import depth, submit
from ratchet.ledger.tables import Batch, Mined, SuiteRow
from ratchet.ledger.undecided import lacks_verdict
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miner.admission import admit
from miner.correction import Corrections, corrections, lesson_budget, replay_size
from miner.inbox import take, waiting_files
from miner.mined_set import read_mined

NAME = "correction"


def find_batches(session: Session, settings: Settings) -> list[Subject]:
    """Submitted batches by priority and age, then files in the inbox."""
    if session.scalar(select(SuiteRow.id).limit(1)) is None:
        return []
    waiting = select(Batch.id).where(Batch.state == "submitted", lacks_verdict(NAME, "batch", Batch.id))
    batches = session.scalars(waiting.order_by(Batch.priority, Batch.submitted_at))
    return [*(Subject("batch", id) for id in batches), *waiting_files(settings.inbox)]


def gate(work: Work) -> Outcome:
    if work.subject.kind == "file":
        return take(work)
    with work.read() as session:
        batch = session.get_one(Batch, work.subject.id)
    return admit(work, batch)


def find_mined(session: Session, _settings: Settings) -> list[Subject]:
    """Mined sets, the newest first."""
    waiting = select(Mined.checkpoint_id).where(
        Mined.artifact.is_not(None), lacks_verdict(NAME, "mined", Mined.checkpoint_id)
    )
    return [Subject("mined", id) for id in session.scalars(waiting.order_by(Mined.created_at.desc()))]


def correct(work: Work) -> Outcome:
    """Lessons from a mined set among ordinary rows, within what the queue has room for."""
    queue = work.settings.queue
    with work.read() as session:
        mined = session.get_one(Mined, work.subject.id)
        newer = session.scalar(select(Mined.checkpoint_id).where(Mined.created_at > mined.created_at).limit(1))
        room = queue.high_water - depth(session).total
        ordinary = _ordinary(session)
        between = _generated_since_correction(session)
    if newer is not None:
        return Verdict("superseded", f"{newer} has been mined since")
    if between < queue.correction_spacing:
        return Verdict("not yet", f"{between} batches were generated since the last corrections")
    budget = lesson_budget(
        queue.correction_examples, queue.correction_share, room, ordinary.examples if ordinary else 0
    )
    if budget <= 0 or ordinary is None:
        return Verdict("no room", f"the queue has room for {max(0, room)} examples")
    assert mined.artifact is not None, "found by it"
    told = Corrections()
    items = read_mined(work.artifacts, mined.artifact)
    lessons = [
        lesson.to_line()
        for lesson in corrections(items, held_out(work.settings.suites), queue.correction_relatives, budget, told)
    ]
    return _submitted(work, lessons, ordinary, room, told)


def _ordinary(session: Session) -> Batch | None:
    """The newest generated batch that passed the gate: its rows are mixed in."""
    query = select(Batch).where(Batch.origin == "generation", Batch.artifact.is_not(None))
    return session.scalar(query.order_by(Batch.queued_at.desc()).limit(1))


def _generated_since_correction(session: Session) -> int:
    """Generated batches that were queued after the newest correction batch was made; all, before the first one."""
    newest = session.scalar(select(func.max(Batch.submitted_at)).where(Batch.origin == NAME)) or 0.0
    count = select(func.count()).select_from(Batch).where(Batch.origin == "generation", Batch.queued_at > newest)
    return session.scalar(count) or 0


def _submitted(work: Work, lessons: list[str], ordinary: Batch, room: int, told: Corrections) -> Verdict:
    numbers = {"by_error": dict(told.by_error), "left_out": dict(told.left_out)}
    if not lessons:
        return Verdict("nothing made", "no mined item has a relative that may be taught", numbers)
    assert ordinary.artifact is not None, "found by it"
    queue = work.settings.queue
    size = replay_size(len(lessons), queue.correction_share, min(queue.batch_examples, room))
    replay = list(islice(work.artifacts.open_lines(ordinary.artifact), size))
    provenance = Provenance(
        generator=NAME,
        version="1",
        parents=(f"mined:{work.subject.id}", f"batch:{ordinary.id}"),
        counts={"lessons": len(lessons), "replay": len(replay)},
    ).model_dump(mode="json")
    artifact = work.artifacts.publish_lines([*lessons, *replay], "batch", provenance)
    classes = ", ".join(f"{count} {name}" for name, count in told.by_error.most_common())

    def effects(tx: Transaction) -> None:
        if tx.session.get(Batch, artifact.id[:16]) is None:
            rows = len(lessons) + len(replay)
            tx.emit(submit(tx, artifact.id, rows, "correction", provenance, "high"))

    reason = f"{len(lessons)} lessons among {len(replay)} ordinary rows: {classes}"
    return Verdict("submitted", reason, numbers, effects)


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Lets every batch through the data gate, and turns mined mistakes into verified examples.",
    says=(BatchQueued, BatchRejected, BatchSubmitted),
    sweep_s=300.0,
    lanes=(
        Lane("gate", (BatchSubmitted,), find_batches, gate),
        Lane("correct", (ExamplesMined,), find_mined, correct),
    ),
)
