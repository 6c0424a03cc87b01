"""Curriculum optimizer: from what a checkpoint masters, and what the data lacks, to the mix of the next batches."""

from __future__ import annotations

from ratchet.evaluation.by_level import from_json
from ratchet.events.catalogue import CheckpointEvaluated, CoverageMeasured, CurriculumChanged
from ratchet.ledger import Transaction
from ratchet.ledger.counters import next_value
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import Batch, Checkpoint, Coverage, Curriculum
from ratchet.ledger.undecided import lacks_verdict
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.systems.backlog import evaluated_without
from sqlalchemy import select
from sqlalchemy.orm import Session

from datagen.curriculum import Level, Mastery, Mix, plan_mix, update_mastery

NAME = "curriculum"


def find(session: Session, _settings: Settings) -> list[Subject]:
    """Evaluated checkpoints, the newest first; then measured batches, the newest first."""
    unheard = select(Coverage.batch_id).where(lacks_verdict(NAME, "coverage", Coverage.batch_id))
    coverages = session.scalars(unheard.order_by(Coverage.created_at.desc()))
    return [*evaluated_without(session, NAME, "probe"), *(Subject("coverage", id) for id in coverages)]


def do(work: Work) -> Outcome:
    with work.read() as session:
        if _is_overtaken(session, work.subject):
            return Verdict("superseded", "a newer one has shaped the mix already")
        newest = session.scalar(select(Curriculum).order_by(Curriculum.id.desc()).limit(1))
        before = Mastery.model_validate(newest.mastery) if newest else Mastery()
        mastery = _measured(session, work, before) if work.subject.kind == "checkpoint" else before
        gaps, exhausted = _coverage(session)
    families = {family.name: family.levels for family in work.settings.suites.families}
    mix = plan_mix(mastery, families, gaps, exhausted, work.settings.curriculum)
    is_same = newest is not None and Mix.model_validate(newest.mix) == mix and before == mastery
    return Verdict("unchanged", "the mix stays") if is_same else _published(mix, mastery)


def _is_overtaken(session: Session, subject: Subject) -> bool:
    """Whether the verdict has been given on a newer subject of the kind: an older one says nothing new."""
    if subject.kind == "checkpoint":
        ordinal = session.get_one(Checkpoint, subject.id).ordinal
        later = select(Checkpoint.id).where(
            Checkpoint.ordinal > ordinal, ~lacks_verdict(NAME, "checkpoint", Checkpoint.id)
        )
    else:
        at = session.get_one(Coverage, subject.id).created_at
        later = select(Coverage.batch_id).where(
            Coverage.created_at > at, ~lacks_verdict(NAME, "coverage", Coverage.batch_id)
        )
    return session.scalar(later.limit(1)) is not None


def _measured(session: Session, work: Work, before: Mastery) -> Mastery:
    row = evaluation(session, work.subject.id, current(session, "probe").id)
    assert row is not None, "found by its record"
    return update_mastery(before, from_json(row.by_level), work.settings.curriculum)


def _coverage(session: Session) -> tuple[dict[Level, float], set[Level]]:
    """Gaps of the newest measured batch that followed a mix, and the levels that its generator found exhausted."""
    generated = select(Coverage).join(Batch, Batch.id == Coverage.batch_id).where(Batch.origin == "generation")
    newest = session.scalar(generated.order_by(Coverage.created_at.desc()).limit(1))
    if newest is None:
        return {}, set()
    gaps = {(cell["family"], int(cell["level"])): float(cell["gap"]) for cell in newest.numbers["cells"]}
    origin = session.get_one(Batch, newest.batch_id).provenance
    pairs = (name.rpartition("/") for name in origin.get("exhausted", []))
    exhausted = {(family, int(level)) for family, _, level in pairs}
    return {level: gap for level, gap in gaps.items() if gap > 0}, exhausted


def _published(mix: Mix, mastery: Mastery) -> Verdict:
    mastered = [f"{level.family} {level.level}" for level in mastery.levels if level.is_mastered]
    shares = ", ".join(f"{share.family} {share.level} {share.weight:.0%}" for share in mix.shares)
    reason = f"mastered: {', '.join(mastered) or 'nothing yet'}; mix: {shares}"

    def effects(tx: Transaction) -> None:
        row = Curriculum(
            id=next_value(tx.session, "curricula"),
            mix=mix.model_dump(mode="json"),
            mastery=mastery.model_dump(mode="json"),
            reason=reason,
            created_at=tx.now,
        )
        tx.session.add(row)
        tx.emit(CurriculumChanged(curriculum_id=row.id))

    return Verdict("changed", reason, {"mix": mix.model_dump(mode="json")}, effects)


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Turns measured mastery and coverage into the mix of the next batches.",
    says=(CurriculumChanged,),
    sweep_s=300.0,
    lanes=(Lane("plan", (CheckpointEvaluated, CoverageMeasured), find, do),),
)
