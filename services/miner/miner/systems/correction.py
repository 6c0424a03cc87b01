"""Self-correction loop: the gate before the queue, and lessons from what mining found.

The gate has a lane of its own, so that data never waits behind the making of lessons.
"""

from __future__ import annotations

from ratchet.artifacts import ArtifactStore
from ratchet.data.batch import Provenance
from ratchet.evaluation.standing import held_out
from ratchet.events.catalogue import BatchQueued, BatchRejected, BatchSubmitted, ExamplesMined
from ratchet.ledger import Transaction
from ratchet.ledger.queue import depth, submit
from ratchet.ledger.tables import Batch, Mined, SuiteRow
from ratchet.ledger.undecided import lacks_verdict
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from miner.admission import admit
from miner.correction import Corrections, corrections
from miner.inbox import take, waiting_files
from miner.mining import MinedItem

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
    """Lessons from a mined set, within the share that corrections may have of the queue."""
    queue = work.settings.queue
    with work.read() as session:
        mined = session.get_one(Mined, work.subject.id)
        newer = session.scalar(select(Mined.checkpoint_id).where(Mined.created_at > mined.created_at).limit(1))
        room = int(queue.correction_share * queue.high_water) - depth(session, "correction").total
    if newer is not None:
        return Verdict("superseded", f"{newer} has been mined since")
    budget = min(queue.correction_examples, room)
    if budget <= 0:
        return Verdict("over budget", f"corrections already take their {queue.correction_share:.0%} of the queue")
    assert mined.artifact is not None, "found by it"
    told = Corrections()
    items = _items(work.artifacts, mined.artifact)
    lessons = corrections(items, held_out(work.settings.suites), queue.correction_relatives, budget, told)
    provenance = Provenance(generator=NAME, version="1", parents=(f"mined:{work.subject.id}",))
    lines = (lesson.to_line() for lesson in lessons)
    artifact = work.artifacts.publish_lines(lines, "batch", provenance.model_dump(mode="json"))
    return _submitted(artifact.id, provenance, told)


def _items(artifacts: ArtifactStore, artifact_id: str) -> list[MinedItem]:
    return [MinedItem.model_validate_json(line) for line in artifacts.open_lines(artifact_id)]


def _submitted(artifact_id: str, provenance: Provenance, told: Corrections) -> Verdict:
    made = told.by_error.total()
    numbers = {"by_error": dict(told.by_error), "left_out": dict(told.left_out)}
    if not made:
        return Verdict("nothing made", "no mined item has a relative that may be taught", numbers)
    classes = ", ".join(f"{count} {name}" for name, count in told.by_error.most_common())

    def effects(tx: Transaction) -> None:
        known = tx.session.get(Batch, artifact_id[:16])
        if known is None:
            tx.emit(submit(tx, artifact_id, made, "correction", provenance.model_dump(mode="json"), "high"))

    return Verdict("submitted", f"{made} examples: {classes}", numbers, effects)


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
