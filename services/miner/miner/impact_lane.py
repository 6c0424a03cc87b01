"""Measuring correction batches: which ones can be, and the verdict on one at one later checkpoint."""

from __future__ import annotations

from ratchet.evaluation.load_evaluation import load_if_intact, load_suite
from ratchet.evaluation.record import Evaluation as Record
from ratchet.evaluation.record import RecordKey
from ratchet.inference.dress import Dress
from ratchet.ledger import Transaction
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BatchRow, CheckpointRow, EvaluationRow, ImpactRow, SuiteRow
from ratchet.settings import Settings
from ratchet.systems import Outcome, Subject, Verdict, Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from miner.answered import Answered
from miner.correction import SOURCE
from miner.impact import ClassImpact, impacts
from miner.mining import Limits

MINED = "mined:"
RECENT = 20
"""Correction batches that are looked at; an older one has been measured, or will not be."""


def find_measurable(session: Session, settings: Settings) -> list[Subject]:
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
        for checkpoint in _after(session, batch, suite, settings.correction.impact_evaluations)
    ]


def measure(work: Work) -> Outcome:
    """The paired change on the batch's error classes from the mined record to this checkpoint's."""
    batch_id, _, checkpoint_id = work.subject.id.partition("/")
    with work.read() as session:
        batch = session.get_one(BatchRow, batch_id)
        suite = current(session, "probe")
        baseline = _baseline(batch)
        records = [evaluation(session, id, suite.id) for id in (baseline, checkpoint_id)]
    before, after = records
    if before is None or after is None or _differ(before, after):
        return Verdict("not comparable", f"{baseline} and {checkpoint_id} have no records made alike on this probe")
    earlier, later = load_if_intact(work.artifacts, before), load_if_intact(work.artifacts, after)
    if earlier is None or later is None:
        return Verdict("not comparable", f"a record of {baseline} or {checkpoint_id} on this probe cannot be read")
    limits = Limits(sure=work.settings.mining.sure, unsure=work.settings.mining.unsure)
    classes = batch.provenance.get("classes", {})
    pairs = (name.rpartition("/") for name in batch.provenance.get("taught", []))
    cells = {(family, int(level)) for family, _, level in pairs}
    found = impacts(_answers(work, suite, earlier), _answers(work, suite, later), classes, limits, cells)
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


def _answers(work: Work, suite: SuiteRow, record: Record) -> list[Answered]:
    dress = Dress.configured(work.settings, suite.created_at)
    items = load_suite(work.artifacts, suite).by_id
    return [Answered.of_record(items[r.item_id], r, dress) for r in record.items]


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
        stopped = classes_in_backoff(session, work.settings.correction, rows)
    numbers = {"impacts": [each.model_dump(mode="json") for each in found], "stopped": stopped}
    return Verdict("measured", _words(found), numbers, effects)


def _words(found: list[ClassImpact]) -> str:
    if not found:
        return "the probe has no item of the classes that were taught"
    return "; ".join(
        f"{each.error_class} {each.before} -> {each.after} of {each.items} "
        f"(fall {100 * each.effect:+.1f} points, {100 * each.fall.low:+.1f} to {100 * each.fall.high:+.1f})"
        for each in found
    )
