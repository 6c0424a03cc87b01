"""Data generation: keeps the queue between low and high water with batches of the curriculum's mix."""

from __future__ import annotations

from collections.abc import Iterator

from ratchet.data.batch import Provenance
from ratchet.evaluation.standing import held_out
from ratchet.events.catalogue import BatchSubmitted, QueueLow
from ratchet.ledger import Transaction
from ratchet.ledger.queue import depth, submit
from ratchet.ledger.tables import Curriculum, DeadLetter, SuiteRow
from ratchet.ledger.tables import Verdict as VerdictRow
from ratchet.ledger.uses import item_uses
from ratchet.settings import Settings
from ratchet.systems import Lane, NotReady, Outcome, Subject, System, Verdict, Work
from sqlalchemy import Integer, cast, func, select, union_all
from sqlalchemy.orm import Session

from datagen.arms.arm import Standing
from datagen.generate import BatchGeneration, GenerationReport, generate_batch
from datagen.mastery import Mastery
from datagen.mix import Mix
from datagen.plan import Assignment, Plan, first_plan

NAME = "generation"
REPORT_EVERY = 1_000


def find(session: Session, settings: Settings) -> list[Subject]:
    """One more refill while the depth is below low water. Nothing but the depth is asked."""
    is_set_up = session.scalar(select(SuiteRow.id).limit(1)) is not None and settings.suites.families
    if not is_set_up or depth(session).total >= settings.queue.low_water:
        return []
    return [Subject("refill", str(number)) for number in _open_refills(session)]


def _open_refills(session: Session) -> list[int]:
    """The number after the last one that was dealt with; before it, those that came back from the dead letters."""
    verdicts = select(VerdictRow.subject_id).where(VerdictRow.system == NAME)
    dead = select(DeadLetter.subject_id).where(DeadLetter.system == NAME)
    retried = dead.where(DeadLetter.resolved_at.is_not(None), DeadLetter.subject_id.not_in(verdicts))
    numbers = union_all(verdicts, dead).subquery().c.subject_id
    last = session.scalar(select(func.max(cast(numbers, Integer)))) or 0
    return [*map(int, session.scalars(retried.distinct())), last + 1]


def do(work: Work) -> Outcome:
    """Generate one batch, published as it streams, and submit it to the gate."""
    queue, seed = work.settings.queue, int(work.subject.id)
    with work.read() as session:
        plan, curriculum_id = _plan(session, work.settings)
        room = queue.high_water - depth(session).total
        uses = item_uses(session)
    assignment, mix = plan.draw(seed)
    shares = [(share.family, share.level, share.weight) for share in mix.shares]
    batch = generate_batch(
        shares,
        min(queue.batch_examples, room),
        seed,
        held_out(work.settings.suites),
        queue.epoch_cap,
        lambda key: uses.get(key, 0),
    )
    provenance = Provenance(generator=NAME, version="1", seed=seed, parents=(f"curriculum:{curriculum_id}",))
    artifact = work.artifacts.publish_lines(_reported(work, batch), "batch", provenance.model_dump(mode="json"))
    if not batch.report.examples:
        return NotReady("a mix with levels that are not exhausted")
    return _submitted(artifact.id, batch.report, provenance, assignment, mix)


def _plan(session: Session, settings: Settings) -> tuple[Plan, int]:
    """The curriculum's newest word; before its first, the favoured arm's mix for a model that masters nothing."""
    newest = session.scalar(select(Curriculum).order_by(Curriculum.id.desc()).limit(1))
    if newest is not None:
        return Plan.stored(newest.experiment, newest.mixes), newest.id
    families = {family.name: family.levels for family in settings.suites.families}
    return first_plan(Standing(families, Mastery(), (), settings.curriculum)), 0


def _reported(work: Work, batch: BatchGeneration) -> Iterator[str]:
    for number, example in enumerate(batch, start=1):
        if number % REPORT_EVERY == 0:
            work.progress(f"{number} examples")
        yield example.to_line()


def _submitted(
    artifact_id: str, report: GenerationReport, provenance: Provenance, assignment: Assignment, mix: Mix
) -> Verdict:
    origin = {
        **provenance.model_copy(update={"counts": report.made}).model_dump(mode="json"),
        "mix": {f"{share.family}/{share.level}": share.weight for share in mix.shares},
        "assignment": assignment.model_dump(mode="json"),
        "exhausted": list(report.exhausted),
    }

    def effects(tx: Transaction) -> None:
        tx.emit(submit(tx, artifact_id, report.examples, "generation", origin))

    reason = f"{report.examples} examples of the {assignment.arm} mix"
    return Verdict("submitted", reason, report.model_dump(mode="json"), effects)


SYSTEM = System(
    name=NAME,
    host="4090",
    purpose="Generates examples of the curriculum's mix while the queue is below low water.",
    says=(BatchSubmitted,),
    sweep_s=300.0,
    lanes=(Lane("generate", (QueueLow,), find, do),),
)
