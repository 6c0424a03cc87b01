"""Makes a correction batch: correction examples from a mined set among ordinary rows, within the room of the queue.

If the checkpoint still exists, it answers some examples itself (rejection sampling); these answers replace bare golds.
Rows of users' tasks are answered by the champion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from ratchet.data.example import Example, Provenance
from ratchet.evaluation.build_suites import held_out
from ratchet.evaluation.load_evaluation import load_suite
from ratchet.evaluation.suite import POOLS
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Transaction
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.deployments import champion
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.queue import depth, submit
from ratchet.ledger.suites import current
from ratchet.ledger.tables import BatchRow, CheckpointRow, MinedRow
from ratchet.settings import Settings
from ratchet.systems import NotReady, Outcome, Verdict, Work
from ratchet.tasks.graders import grade_example
from ratchet.user_tasks.supply import are_passes_left
from ratchet.user_tasks.task import all_tasks
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miner.correction_examples import (
    SOURCE,
    CorrectionCounts,
    correction_examples,
    error_class,
    example_budget,
    judgement_examples,
    replay_size,
)
from miner.mined_items import MinedItem, read_mined
from miner.model_children import ModelSpec, SamplingResult, SamplingSpec
from miner.task_rows import correctable_tasks, row_examples, split_items

CHILD = "miner.model_children:sample_answers"

BATCHES_BETWEEN = 2
"""Generated batches that are queued between two correction batches, so that most trained rows stay ordinary ones. Once
no more will be generated, corrections follow each other one at a time, with replay in each."""

MOST_EXAMPLES = 1_000
"""Most correction examples in one batch: about what a full set of mined items gives."""

EXAMPLES_PER_ITEM = 8
"""Most examples made from one mined item: enough to practise its kind, too few to memorise one problem."""

SAMPLED_EXAMPLES = 32
"""Most examples of a batch that the model answers itself: sampling costs as much as testing them several times."""

SAMPLING_TEMPERATURE = 0.8
"""High enough that several samples differ, low enough that a model that can solve an item mostly does."""

CLASS_SHARE = 0.4
"""Largest share of the correction examples that one error class can have: one kind of mistake does not fill a batch."""


@dataclass
class CorrectionExamples:
    """The examples of a batch, with the numbers of how they were made."""

    rows: list[Example]
    counts: CorrectionCounts
    backed_off: dict[str, str]
    sampling: dict[str, int] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, object]:
        return {
            "by_error": dict(self.counts.by_error),
            "left_out": dict(self.counts.left_out),
            "judged": self.counts.judged,
            "sampling": self.sampling,
            "backed_off": self.backed_off,
        }


def correct(work: Work) -> Outcome:
    """A batch from a mined set, unless a newer set exists, the last correction is too recent, or the queue is full."""
    queue = work.settings.queue
    with work.read() as session:
        mined = session.get_one(MinedRow, work.subject.id)
        newer = session.scalar(select(MinedRow.checkpoint_id).where(MinedRow.created_at > mined.created_at).limit(1))
        room = queue.high_water - depth(session).total
        ordinary = _ordinary(session)
        between = _generated_since_correction(session)
        more_to_come = _are_more_generated(session, work.settings)
        is_one_open = _is_correction_open(session)
        is_measured = _is_measured(session, mined.checkpoint_id)
        backed_off = classes_in_backoff(session)
    if newer is not None:
        return Verdict("superseded", f"{newer} has been mined since")
    if not is_measured:
        return NotReady(f"the curriculum's verdict on {mined.checkpoint_id}, which tells whether tasks still gain")
    if between < BATCHES_BETWEEN and more_to_come:
        return Verdict("not yet", f"batches generated since the last corrections: {between} of {BATCHES_BETWEEN}")
    if is_one_open and not more_to_come:
        return Verdict("not yet", "the correction batch before is still to be trained")
    budget = example_budget(MOST_EXAMPLES, queue.correction_share, room, ordinary.examples if ordinary else 0)
    if budget <= 0 or ordinary is None:
        return Verdict("no room", f"the queue has room for {max(0, room)} examples")
    assert mined.artifact is not None, "found by it"
    made = _examples(work, read_mined(work.artifacts, mined.artifact), budget, backed_off)
    return _submitted(work, made, ordinary, room)


def _ordinary(session: Session) -> BatchRow | None:
    """The newest generated batch that passed the gate: its rows are mixed in."""
    query = select(BatchRow).where(
        BatchRow.origin == "generation", BatchRow.artifact.is_not(None), BatchRow.task.is_(None)
    )
    return session.scalar(query.order_by(BatchRow.queued_at.desc()).limit(1))


def _generated_since_correction(session: Session) -> int:
    """Generated batches that were queued after the newest correction batch was made; all, before the first one."""
    newest = session.scalar(select(func.max(BatchRow.submitted_at)).where(BatchRow.origin == SOURCE)) or 0.0
    count = (
        select(func.count()).select_from(BatchRow).where(BatchRow.origin == "generation", BatchRow.queued_at > newest)
    )
    return session.scalar(count) or 0


def _are_more_generated(session: Session, settings: Settings) -> bool:
    """Whether generation will make further batches by itself."""
    return bool(settings.suites.families) or are_passes_left(session)


def _is_correction_open(session: Session) -> bool:
    """Whether an earlier correction batch is on its way to training, or in training."""
    query = select(BatchRow.id).where(
        BatchRow.origin == SOURCE, BatchRow.state.in_(("submitted", "queued", "training"))
    )
    return session.scalar(query.limit(1)) is not None


def _is_measured(session: Session, checkpoint_id: str) -> bool:
    """Whether it is known if the users' tasks still gain from what the checkpoint was trained on."""
    if not all_tasks(session, "user"):
        return True
    unmeasured = select(CheckpointRow.id).where(
        CheckpointRow.id == checkpoint_id, lacks_verdict("curriculum", "checkpoint", CheckpointRow.id)
    )
    return session.scalar(unmeasured) is None


def _examples(work: Work, items: list[MinedItem], budget: int, backed_off: dict[str, str]) -> CorrectionExamples:
    settings = work.settings
    with work.read() as session:
        at = current(session, "probe").created_at
        texts = [key for pool in POOLS for key in load_suite(work.artifacts, current(session, pool)).keys]
        checkpoint = session.get_one(CheckpointRow, work.subject.id)
        own = {task.name for task in all_tasks(session, "user")}
        open_tasks = {task.name for task in correctable_tasks(session)}
    counts, held = CorrectionCounts(), held_out(settings.suites).with_keys(texts)
    items, rows = split_items(items, open_tasks, own, counts)
    of_rows = _row_examples(work, rows, budget * len(rows) // max(1, len(rows) + len(items)), at, counts, backed_off)
    budget -= len(of_rows.rows)
    prompt_format = PromptFormat.configured(settings, at)
    most_judged = int(settings.correction.judged_share * budget)
    active = [item for item in items if error_class(item) not in backed_off]
    judged = list(judgement_examples(active, held, most_judged, prompt_format.parse, counts, CLASS_SHARE))
    rest = budget - len(judged)
    worked = correction_examples(items, held, EXAMPLES_PER_ITEM, rest, counts, backed_off, CLASS_SHARE)
    made = CorrectionExamples(list(worked), counts, backed_off)
    if made.rows and checkpoint.state == "saved":
        _resample(work, checkpoint, at, made)
    if made.rows:
        made.rows += judged
    made.rows += of_rows.rows
    made.sampling = made.sampling or of_rows.sampling
    return made


def _row_examples(
    work: Work,
    rows: list[MinedItem],
    budget: int,
    at: float,
    counts: CorrectionCounts,
    backed_off: dict[str, str],
) -> CorrectionExamples:
    """Examples of training rows; the champion answers up to SAMPLED_EXAMPLES of those that a grader can check."""
    made = CorrectionExamples([], counts, backed_off)
    samples, right = work.settings.correction.samples, {}
    graded = [item for item in rows if item.category != "hard" and error_class(item) not in backed_off]
    with work.read() as session:
        best = champion(session)
    if graded and samples and budget and best.state == "saved":
        asked = graded[:SAMPLED_EXAMPLES]
        result = _sampled(work, best, at, [item.example for item in asked], samples)
        right = {item.key: texts for item, texts in zip(asked, result.right, strict=True)}
        made.sampling = {"asked": result.asked, "verified": result.verified}
    made.rows = row_examples(rows, right, samples, budget, counts, backed_off)
    if made.sampling:
        made.sampling["kept"] = sum("answer_by" in row.metadata for row in made.rows)
    return made


def _sampled(
    work: Work, checkpoint: CheckpointRow, at: float, items: Sequence[Example], samples: int
) -> SamplingResult:
    """The checkpoint's answers to each item, at a temperature."""
    folder = work.artifacts.fetch(checkpoint.artifact)
    model = ModelSpec.configured(work.settings, folder, checkpoint.weights, at, work.folder)
    decoding = model.decoding.model_copy(update={"temperature": SAMPLING_TEMPERATURE})
    spec = SamplingSpec(model=model.model_copy(update={"decoding": decoding}), items=tuple(items), samples=samples)
    return SamplingResult.model_validate(work.child(CHILD, spec.model_dump(mode="json")))


def _resample(work: Work, checkpoint: CheckpointRow, at: float, made: CorrectionExamples) -> None:
    """Replace bare golds by the model's own verified answers, for up to SAMPLED_EXAMPLES examples."""
    samples = work.settings.correction.samples
    places = [place for place, row in enumerate(made.rows) if row.answer == row.metadata["gold"]]
    places = places[:SAMPLED_EXAMPLES]
    if not places or not samples:
        return
    result = _sampled(work, checkpoint, at, [made.rows[place] for place in places], samples)
    made.sampling = {"asked": result.asked, "verified": result.verified, "kept": 0}
    for place, text in zip(places, result.kept, strict=True):
        if text is not None:
            made.sampling["kept"] += _replace(made.rows, place, text)


def _replace(rows: list[Example], place: int, text: str) -> bool:
    """Use this answer instead if it has more than the gold and the grader accepts it once more."""
    row = rows[place]
    if text.strip() == row.answer or not grade_example(row, text).correct:
        return False
    answer = row.messages[-1].model_copy(update={"content": text})
    metadata = {**row.metadata, "answer_by": "rejection sampling"}
    rows[place] = row.model_copy(update={"messages": (*row.messages[:-1], answer), "metadata": metadata})
    return True


def _submitted(work: Work, made: CorrectionExamples, ordinary: BatchRow, room: int) -> Verdict:
    if not made.rows:
        return Verdict("nothing made", _why_nothing(made), made.numbers)
    assert ordinary.artifact is not None, "found by it"
    queue, count = work.settings.queue, len(made.rows)
    size = replay_size(count, queue.correction_share, min(queue.batch_examples, room))
    replay = list(islice(work.artifacts.open_lines(ordinary.artifact), size))
    provenance = _provenance(work, made, ordinary, len(replay))
    lines: Sequence[str] = [*(row.to_line() for row in made.rows), *replay]
    artifact = work.artifacts.publish_lines(lines, "batch", provenance)

    def effects(tx: Transaction) -> None:
        if tx.session.get(BatchRow, artifact.id[:16]) is None:
            tx.emit(submit(tx, artifact.id, len(lines), "correction", provenance, "high"))

    classes = ", ".join(f"{number} {name}" for name, number in made.counts.by_error.most_common())
    reason = f"{count} correction examples among {len(replay)} ordinary rows: {classes}"
    if made.backed_off:
        reason += f"; backed off: {', '.join(made.backed_off)}"
    return Verdict("submitted", reason, made.numbers, effects)


def _why_nothing(made: CorrectionExamples) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in made.counts.left_out.most_common())
    return "no mined item, and none like it, may be trained on" + (f": {reasons}" if reasons else "")


def _provenance(work: Work, made: CorrectionExamples, ordinary: BatchRow, replay: int) -> dict[str, object]:
    provenance = Provenance(
        generator=SOURCE,
        version="2",
        parents=(f"mined:{work.subject.id}", f"batch:{ordinary.id}"),
        counts={"corrections": len(made.rows), "replay": replay},
    )
    cells = sorted({f"{row.family}/{row.level}" for row in made.rows})
    return {**provenance.model_dump(mode="json"), "classes": dict(made.counts.by_error), "cells": cells}
