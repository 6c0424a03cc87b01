"""Curriculum optimizer: which strategy improves the model most, and the mix of the next batches.

It also sees whether a checkpoint is the best so far on each user's task, which decides how long its rows are taught.
"""

from __future__ import annotations

from typing import Any

from ratchet.evaluation.record import LevelRates, rates_from_json
from ratchet.events import Event
from ratchet.events.catalogue import CheckpointEvaluated, CoverageMeasured, CurriculumChanged, TaskMeasured
from ratchet.ledger import Transaction
from ratchet.ledger.ledger import next_counter
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BatchRow, CheckpointRow, CoverageRow, CurriculumRow, EvaluationRow, TrialRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.evaluated_checkpoints import evaluated_without
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from datagen.bandit import FINISHED, Experiment, conclude
from datagen.mix import Mix, Plan, plan
from datagen.strategies import RECENT, LearnerState, Level, Mastery, update_mastery
from datagen.task_progress import TaskMeasure, measure_tasks, record_measures, words
from datagen.trials import as_trial, new_trial, read_trials, record_trial

NAME = "curriculum"
RECENT_BATCHES = 50
"""Newest measured batches among which the last one of families is looked for."""


def find(session: Session, _settings: Settings) -> list[Subject]:
    """Evaluated checkpoints, the newest first; then measured batches, the newest first."""
    pending = select(CoverageRow.batch_id).where(lacks_verdict(NAME, "coverage", CoverageRow.batch_id))
    coverages = session.scalars(pending.order_by(CoverageRow.created_at.desc()))
    return [*evaluated_without(session, NAME, "probe"), *(Subject("coverage", id) for id in coverages)]


def do(work: Work) -> Outcome:
    """A checkpoint older than the newest judged one changes no mix, but its trial counts."""
    is_checkpoint = work.subject.kind == "checkpoint"
    with work.read() as session:
        trial = new_trial(session, work.artifacts, work.subject.id) if is_checkpoint else None
        if _is_overtaken(session, work.subject):
            return Verdict(
                "superseded", "a newer one has shaped the mix already", _trial_numbers(trial), _record(trial)
            )
        newest = session.scalar(select(CurriculumRow).order_by(CurriculumRow.id.desc()).limit(1))
        before = Mastery.model_validate(newest.mastery) if newest else Mastery()
        mastery = _measured(session, work, before) if is_checkpoint else before
        made = _planned(session, work, mastery, trial, newest)
        measures = measure_tasks(session, work.artifacts, work.subject.id) if is_checkpoint else []
    stored = Plan.stored(newest.experiment, newest.mixes) if newest else None
    if stored is not None and made.is_same_as(stored) and before == mastery and trial is None:
        return _unchanged(work.subject.id, measures)
    return _published(work.subject.id, made, mastery, trial, measures)


def _planned(
    session: Session, work: Work, mastery: Mastery, trial: TrialRow | None, newest: CurriculumRow | None
) -> Plan:
    settings = work.settings.curriculum
    known = [*read_trials(session), *([as_trial(trial, _age(session, trial))] if trial else [])]
    experiment = conclude(
        known,
        settings,
        has_mastered=mastery.any,
        was_finished=newest is not None and newest.experiment.get("state") in FINISHED,
    )
    families = {family.name: family.levels for family in work.settings.suites.families}
    learner = LearnerState(families, mastery, _history(session), settings)
    return plan(learner, experiment, *_coverage(session))


def _age(session: Session, trial: TrialRow) -> int:
    newest = session.scalar(select(func.max(CheckpointRow.ordinal))) or 0
    return newest - session.get_one(CheckpointRow, trial.checkpoint_id).ordinal


def _is_overtaken(session: Session, subject: Subject) -> bool:
    """Whether a newer subject of this kind has a verdict: an older one adds nothing."""
    if subject.kind == "checkpoint":
        ordinal = session.get_one(CheckpointRow, subject.id).ordinal
        later = select(CheckpointRow.id).where(
            CheckpointRow.ordinal > ordinal, ~lacks_verdict(NAME, "checkpoint", CheckpointRow.id)
        )
    else:
        at = session.get_one(CoverageRow, subject.id).created_at
        later = select(CoverageRow.batch_id).where(
            CoverageRow.created_at > at, ~lacks_verdict(NAME, "coverage", CoverageRow.batch_id)
        )
    return session.scalar(later.limit(1)) is not None


def _measured(session: Session, work: Work, before: Mastery) -> Mastery:
    row = evaluation(session, work.subject.id, current(session, "probe").id)
    assert row is not None, "found by its record"
    return update_mastery(before, rates_from_json(row.by_level), work.settings.curriculum.mastery)


def _history(session: Session) -> tuple[LevelRates, ...]:
    """Rates of the last checkpoints that were probed, the newest last."""
    query = select(EvaluationRow).join(CheckpointRow, CheckpointRow.id == EvaluationRow.checkpoint_id)
    query = query.where(EvaluationRow.suite_id == current(session, "probe").id, CheckpointRow.state != "broken")
    rows = session.scalars(query.order_by(CheckpointRow.ordinal.desc()).limit(RECENT)).all()
    return tuple(rates_from_json(row.by_level) for row in reversed(rows))


def _coverage(session: Session) -> tuple[dict[Level, float], set[Level]]:
    """Gaps of the newest measured batch that followed a mix, and the levels that its generator found exhausted."""
    generated = (
        select(CoverageRow).join(BatchRow, BatchRow.id == CoverageRow.batch_id).where(BatchRow.origin == "generation")
    )
    measured = session.scalars(generated.order_by(CoverageRow.created_at.desc()).limit(RECENT_BATCHES))
    pairs = ((row, session.get_one(BatchRow, row.batch_id).provenance) for row in measured)
    newest, origin = next(((row, told) for row, told in pairs if told.get("mix")), (None, {}))
    if newest is None:
        return {}, set()
    gaps = {(cell["family"], int(cell["level"])): float(cell["gap"]) for cell in newest.numbers["cells"]}
    names = (name.rpartition("/") for name in origin.get("exhausted", []))
    exhausted = {(family, int(level)) for family, _, level in names}
    return {level: gap for level, gap in gaps.items() if gap > 0}, exhausted


def _unchanged(subject: str, measures: list[TaskMeasure]) -> Verdict:
    def effects(tx: Transaction) -> None:
        record_measures(tx, subject, measures)

    reason = "; ".join(filter(None, ("the mix stays", words(measures))))
    return Verdict("unchanged", reason, _task_numbers(measures), effects, _measured_events(subject, measures))


def _measured_events(subject: str, measures: list[TaskMeasure]) -> tuple[Event, ...]:
    return (TaskMeasured(checkpoint_id=subject),) if measures else ()


def _task_numbers(measures: list[TaskMeasure]) -> dict[str, Any]:
    return {"tasks": [measure.model_dump(mode="json") for measure in measures]} if measures else {}


def _published(
    subject: str, made: Plan, mastery: Mastery, trial: TrialRow | None, measures: list[TaskMeasure]
) -> Verdict:
    reason = _reason(made.mix, made.experiment, mastery, measures)

    def effects(tx: Transaction) -> None:
        _record(trial)(tx)
        record_measures(tx, subject, measures)
        row = CurriculumRow(
            id=next_counter(tx.session, "curricula"),
            mix=made.mix.model_dump(mode="json"),
            mixes={arm: mix.model_dump(mode="json") for arm, mix in made.mixes.items()},
            experiment=made.experiment.model_dump(mode="json"),
            mastery=mastery.model_dump(mode="json"),
            reason=reason,
            created_at=tx.now,
        )
        tx.session.add(row)
        tx.emit(CurriculumChanged(curriculum_id=row.id))

    numbers = {
        "mix": made.mix.model_dump(mode="json"),
        "experiment": made.experiment.model_dump(mode="json"),
        **_trial_numbers(trial),
        **_task_numbers(measures),
    }
    return Verdict("changed", reason, numbers, effects, _measured_events(subject, measures))


def _reason(mix: Mix, experiment: Experiment, mastery: Mastery, measures: list[TaskMeasure]) -> str:
    mastered = [f"{level.family} {level.level}" for level in mastery.levels if level.is_mastered]
    shares = ", ".join(f"{share.family} {share.level} {share.weight:.0%}" for share in mix.shares)
    arms = ", ".join(f"{name} {share:.0%}" for name, share in experiment.shares().items() if share)
    of_families = f"batches: {arms}; {mix.strategy} mix: {shares}" if mix.shares else ""
    told = (f"mastered: {', '.join(mastered) or 'nothing yet'}", of_families, words(measures))
    return "; ".join(filter(None, told))


def _record(trial: TrialRow | None) -> Any:
    return lambda tx: record_trial(tx, trial)


def _trial_numbers(trial: TrialRow | None) -> dict[str, Any]:
    return {} if trial is None else {"trial": as_trial(trial, 0).model_dump(mode="json")}


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Finds which strategy teaches most and decides the next mix; sees whether a task still gains.",
    emits=(CurriculumChanged, TaskMeasured),
    sweep_s=300.0,
    lanes=(Lane("plan", (CheckpointEvaluated, CoverageMeasured), find, do),),
    order=9,
    per_checkpoint=True,
    pending="probe records",
)
