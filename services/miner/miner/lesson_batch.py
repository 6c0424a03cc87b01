"""A correction batch in the making: lessons from a mined set among ordinary rows, within the room of the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from ratchet.data.batch import Provenance
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import held_out
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS
from ratchet.inference.dress import Dress
from ratchet.ledger import Transaction
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.queue import depth, submit
from ratchet.ledger.suites import current
from ratchet.ledger.tables import BatchRow, CheckpointRow, MinedRow
from ratchet.systems import Outcome, Verdict, Work
from ratchet.tasks.graders import grade_example
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miner.asked_model import ModelSpec
from miner.correction import (
    SOURCE,
    Corrections,
    corrections,
    error_class,
    judgements,
    lesson_budget,
    replay_size,
)
from miner.mined_set import read_mined
from miner.mining import MinedItem
from miner.sampling_child import SamplingResult, SamplingSpec

CHILD = "miner.sampling_child:sample_answers"


@dataclass
class Lessons:
    """What will be taught, and what there is to tell about it."""

    rows: list[Example]
    told: Corrections
    stopped: dict[str, str]
    sampling: dict[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, object]:
        return {
            "by_error": dict(self.told.by_error),
            "left_out": dict(self.told.left_out),
            "judged": self.told.judged,
            "sampling": self.sampling,
            "stopped": self.stopped,
        }


def correct(work: Work) -> Outcome:
    """Lessons from a mined set, unless a newer one is there, the last ones are too near, or the queue is full."""
    queue = work.settings.queue
    with work.read() as session:
        mined = session.get_one(MinedRow, work.subject.id)
        newer = session.scalar(select(MinedRow.checkpoint_id).where(MinedRow.created_at > mined.created_at).limit(1))
        room = queue.high_water - depth(session).total
        ordinary = _ordinary(session)
        between = _generated_since_correction(session)
        stopped = classes_in_backoff(session, work.settings.correction)
    if newer is not None:
        return Verdict("superseded", f"{newer} has been mined since")
    if between < queue.correction_spacing:
        return Verdict(
            "not yet", f"batches generated since the last corrections: {between} of {queue.correction_spacing}"
        )
    budget = lesson_budget(
        queue.correction_examples, queue.correction_share, room, ordinary.examples if ordinary else 0
    )
    if budget <= 0 or ordinary is None:
        return Verdict("no room", f"the queue has room for {max(0, room)} examples")
    assert mined.artifact is not None, "found by it"
    lessons = _lessons(work, read_mined(work.artifacts, mined.artifact), budget, stopped)
    return _submitted(work, lessons, ordinary, room)


def _ordinary(session: Session) -> BatchRow | None:
    """The newest generated batch that passed the gate: its rows are mixed in."""
    query = select(BatchRow).where(BatchRow.origin == "generation", BatchRow.artifact.is_not(None))
    return session.scalar(query.order_by(BatchRow.queued_at.desc()).limit(1))


def _generated_since_correction(session: Session) -> int:
    """Generated batches that were queued after the newest correction batch was made; all, before the first one."""
    newest = session.scalar(select(func.max(BatchRow.submitted_at)).where(BatchRow.origin == SOURCE)) or 0.0
    count = (
        select(func.count()).select_from(BatchRow).where(BatchRow.origin == "generation", BatchRow.queued_at > newest)
    )
    return session.scalar(count) or 0


def _lessons(work: Work, items: list[MinedItem], budget: int, stopped: dict[str, str]) -> Lessons:
    settings = work.settings
    with work.read() as session:
        at = current(session, "probe").created_at
        texts = [key for pool in POOLS for key in load_suite(work.artifacts, current(session, pool)).keys]
        checkpoint = session.get_one(CheckpointRow, work.subject.id)
    told, held = Corrections(), held_out(settings.suites).with_keys(texts)
    dress = Dress.configured(settings, at)
    share, most_judged = settings.correction.class_share, int(settings.correction.judged_share * budget)
    going_on = [item for item in items if error_class(item) not in stopped]
    judged = list(judgements(going_on, held, most_judged, dress.answer, told, share))
    rest = budget - len(judged)
    worked = corrections(items, held, settings.queue.correction_relatives, rest, told, stopped, share)
    lessons = Lessons(list(worked), told, stopped)
    if lessons.rows and checkpoint.state == "saved":
        _resample(work, checkpoint, at, lessons)
    if lessons.rows:
        lessons.rows += judged
    return lessons


def _resample(work: Work, checkpoint: CheckpointRow, at: float, lessons: Lessons) -> None:
    """Put the model's own verified answers in the place of bare golds, as far as the settings allow."""
    settings = work.settings.correction
    places = [place for place, row in enumerate(lessons.rows) if row.answer == row.metadata["gold"]]
    places = places[: settings.sampled_lessons]
    if not places or not settings.samples:
        return
    folder = work.artifacts.fetch(checkpoint.artifact)
    model = ModelSpec.configured(work.settings, folder, checkpoint.weights, at)
    decoding = model.decoding.model_copy(update={"temperature": settings.temperature})
    spec = SamplingSpec(
        model=model.model_copy(update={"decoding": decoding}),
        items=tuple(lessons.rows[place] for place in places),
        samples=settings.samples,
    )
    result = SamplingResult.model_validate(work.child(CHILD, spec.model_dump(mode="json")))
    lessons.sampling = {"asked": result.asked, "verified": result.verified, "kept": 0}
    for place, text in zip(places, result.kept, strict=True):
        if text is not None:
            lessons.sampling["kept"] += _replace(lessons.rows, place, text)


def _replace(rows: list[Example], place: int, text: str) -> bool:
    """Teach this answer instead, if it says more than the gold and the grader, asked once more, accepts it."""
    row = rows[place]
    if text.strip() == row.answer or not grade_example(row, text).correct:
        return False
    answer = row.messages[-1].model_copy(update={"content": text})
    metadata = {**row.metadata, "answer_by": "rejection sampling"}
    rows[place] = row.model_copy(update={"messages": (*row.messages[:-1], answer), "metadata": metadata})
    return True


def _submitted(work: Work, lessons: Lessons, ordinary: BatchRow, room: int) -> Verdict:
    if not lessons.rows:
        return Verdict("nothing made", _why_nothing(lessons), lessons.numbers)
    assert ordinary.artifact is not None, "found by it"
    queue, count = work.settings.queue, len(lessons.rows)
    size = replay_size(count, queue.correction_share, min(queue.batch_examples, room))
    replay = list(islice(work.artifacts.open_lines(ordinary.artifact), size))
    provenance = _provenance(work, lessons, ordinary, len(replay))
    lines: Sequence[str] = [*(row.to_line() for row in lessons.rows), *replay]
    artifact = work.artifacts.publish_lines(lines, "batch", provenance)

    def effects(tx: Transaction) -> None:
        if tx.session.get(BatchRow, artifact.id[:16]) is None:
            tx.emit(submit(tx, artifact.id, len(lines), "correction", provenance, "high"))

    classes = ", ".join(f"{number} {name}" for name, number in lessons.told.by_error.most_common())
    reason = f"{count} lessons among {len(replay)} ordinary rows: {classes}"
    if lessons.stopped:
        reason += f"; stopped: {', '.join(lessons.stopped)}"
    return Verdict("submitted", reason, lessons.numbers, effects)


def _why_nothing(lessons: Lessons) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in lessons.told.left_out.most_common())
    return "no mined item has a relative that may be taught" + (f": {reasons}" if reasons else "")


def _provenance(work: Work, lessons: Lessons, ordinary: BatchRow, replay: int) -> dict[str, object]:
    provenance = Provenance(
        generator=SOURCE,
        version="2",
        parents=(f"mined:{work.subject.id}", f"batch:{ordinary.id}"),
        counts={"lessons": len(lessons.rows), "replay": replay},
    )
    taught = sorted({f"{row.family}/{row.level}" for row in lessons.rows})
    return {**provenance.model_dump(mode="json"), "classes": dict(lessons.told.by_error), "taught": taught}
