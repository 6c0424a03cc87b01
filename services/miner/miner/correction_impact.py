"""Whether a correction batch helped: the fall of its error classes on the probe items, paired, with an interval.

For a class, every probe item of its family, at the levels of the examples, counts as showing it or not, before the
batch (in the record that was mined) and after. Counting all of these items, and not only those that were wrong, avoids
regression to the mean: items that were chosen because they were wrong are less often wrong the next time anyway.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.load_evaluation import load_if_intact, load_suite
from ratchet.evaluation.record import RecordKey
from ratchet.inference.prompt_format import PromptFormat
from ratchet.ledger import Transaction
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BatchRow, CheckpointRow, EvaluationRow, ImpactRow, SuiteRow
from ratchet.settings import Settings
from ratchet.stats.proportions import Interval
from ratchet.systems import Outcome, Subject, Verdict, Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miner.correction_examples import SOURCE
from miner.mined_items import UNSURE, GradedAnswer, graded_answers

MINED = "mined:"
RECENT = 20
"""Newest correction batches that are considered; an older one has been measured, or never will be."""

EVALUATIONS = 3
"""Evaluations after a batch that measure its impact: the effect may pass, and training goes on meanwhile."""


class ClassImpact(BaseModel):
    """One error class over ``items`` probe items: ``before`` showed it, ``after`` do.

    ``gains`` stopped showing it, ``losses`` started to. ``fall`` bounds the fall of its rate (above 0: it became
    rarer).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    error_class: str
    items: int
    before: int
    after: int
    gains: int
    losses: int
    fall: Interval

    @property
    def effect(self) -> float:
        """The fall of the rate itself."""
        return (self.gains - self.losses) / self.items


def shown_class(answer: GradedAnswer) -> str | None:
    """The class that an answer shows: ``family:error``, ``family:low_margin`` for a right answer like that, or none."""
    family = answer.cell[0]
    if answer.error:
        return f"{family}:{answer.error}"
    return f"{family}:low_margin" if answer.least_probability < UNSURE else None


def impacts(
    before: Sequence[GradedAnswer],
    after: Sequence[GradedAnswer],
    classes: Iterable[str],
    cells: Container[tuple[str, int]],
) -> list[ClassImpact]:
    """The impact on each class that the probe holds items of, by Tango's score interval (ratchet.stats.paired_tests).

    ``cells`` are the families and levels of the batch's examples.
    """
    from ratchet.stats.paired_tests import difference_interval  # scipy; this alone needs it

    now = {answer.key: shown_class(answer) for answer in after}
    was = {answer.key: shown_class(answer) for answer in before}
    families = {answer.key: answer.cell[0] for answer in before if answer.cell in cells}
    found = []
    for name in sorted(set(classes)):
        keys = [key for key, family in families.items() if family == name.rpartition(":")[0] and key in now]
        if keys:
            gains = sum(was[key] == name != now[key] for key in keys)
            losses = sum(now[key] == name != was[key] for key in keys)
            found.append(
                ClassImpact(
                    error_class=name,
                    items=len(keys),
                    before=sum(was[key] == name for key in keys),
                    after=sum(now[key] == name for key in keys),
                    gains=gains,
                    losses=losses,
                    fall=difference_interval(gains, losses, len(keys)),
                )
            )
    return found


def find_measurable(session: Session, _settings: Settings) -> list[Subject]:
    """Trained correction batches with each of the first checkpoints after them that have a probe record."""
    if session.scalar(select(SuiteRow.id).where(SuiteRow.pool == "probe").limit(1)) is None:
        return []
    suite = current(session, "probe").id
    batches = (
        select(BatchRow)
        .where(BatchRow.origin == SOURCE, BatchRow.state == "trained")
        .order_by(BatchRow.submitted_at.desc())
    )
    return [
        Subject("impact", f"{batch.id}/{checkpoint}")
        for batch in session.scalars(batches.limit(RECENT))
        for checkpoint in _after(session, batch, suite, EVALUATIONS)
    ]


def measure(work: Work) -> Outcome:
    """The paired change on the batch's error classes from the mined record to this checkpoint's."""
    batch_id, _, checkpoint_id = work.subject.id.partition("/")
    with work.read() as session:
        batch = session.get_one(BatchRow, batch_id)
        suite = current(session, "probe")
        baseline = _baseline(batch)
        before, after = (evaluation(session, id, suite.id) for id in (baseline, checkpoint_id))
    if before is None or after is None or _differ(before, after):
        return Verdict("not comparable", f"{baseline} and {checkpoint_id} have no comparable records on this probe")
    earlier, later = load_if_intact(work.artifacts, before), load_if_intact(work.artifacts, after)
    if earlier is None or later is None:
        return Verdict("not comparable", f"a record of {baseline} or {checkpoint_id} on this probe cannot be read")
    classes = batch.provenance.get("classes", {})
    pairs = (name.rpartition("/") for name in batch.provenance.get("cells", []))
    cells = {(family, int(level)) for family, _, level in pairs}
    items, prompt_format = load_suite(work.artifacts, suite), PromptFormat.configured(work.settings, suite.created_at)
    was, now = (graded_answers(items, record, prompt_format) for record in (earlier, later))
    found = impacts(was, now, classes, cells)
    return _measured(work, batch_id, checkpoint_id, baseline, found)


def _after(session: Session, batch: BatchRow, suite: str, most: int) -> list[str]:
    """Checkpoints from the last one that was saved in this batch on."""
    last = session.scalar(select(func.max(CheckpointRow.ordinal)).where(CheckpointRow.batch_id == batch.id))
    if last is None:
        return []
    query = select(CheckpointRow.id).join(EvaluationRow, EvaluationRow.checkpoint_id == CheckpointRow.id)
    query = query.where(EvaluationRow.suite_id == suite, CheckpointRow.ordinal >= last, CheckpointRow.state != "broken")
    return list(session.scalars(query.order_by(CheckpointRow.ordinal).limit(most)))


def _baseline(batch: BatchRow) -> str:
    """The checkpoint whose mined items the batch was made of."""
    parents = batch.provenance.get("parents", [])
    return next((parent.removeprefix(MINED) for parent in parents if parent.startswith(MINED)), "")


def _differ(one: EvaluationRow, other: EvaluationRow) -> bool:
    keys = [RecordKey.model_validate(row.key).conditions() for row in (one, other)]
    return keys[0] != keys[1]


def _measured(work: Work, batch_id: str, checkpoint_id: str, baseline: str, found: list[ClassImpact]) -> Verdict:
    rows = [
        ImpactRow(
            batch_id=batch_id,
            checkpoint_id=checkpoint_id,
            baseline_id=baseline,
            **each.model_dump(exclude={"fall"}),
            low=each.fall.low,
            high=each.fall.high,
        )
        for each in found
    ]

    def effects(tx: Transaction) -> None:
        for row in rows:
            row.created_at = tx.now
            tx.session.add(row)

    with work.read() as session:
        backed_off = classes_in_backoff(session, rows)
    numbers = {"impacts": [each.model_dump(mode="json") for each in found], "backed_off": backed_off}
    return Verdict("measured", _words(found), numbers, effects)


def _words(found: list[ClassImpact]) -> str:
    if not found:
        return "the probe has no item of the batch's error classes"
    return "; ".join(
        f"{each.error_class} {each.before} -> {each.after} of {each.items} "
        f"(fall {100 * each.effect:+.1f} points, {100 * each.fall.low:+.1f} to {100 * each.fall.high:+.1f})"
        for each in found
    )
