"""Self-correction: the data gate before the queue, examples made from mined mistakes, and their measured impact.

The gate has its own lane, so that data does not wait for the generation of examples.
"""

from __future__ import annotations

from ratchet.events.catalogue import (
    BatchQueued,
    BatchRejected,
    BatchStored,
    BatchSubmitted,
    CheckpointEvaluated,
    ExamplesMined,
    TaskMeasured,
)
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import BatchRow, MinedRow, SuiteRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from miner.correction_batch import correct
from miner.correction_impact import find_measurable, measure
from miner.gate_batches import gate_batch
from miner.inbox import take, waiting_files

NAME = "correction"


def find_batches(session: Session, settings: Settings) -> list[Subject]:
    """Submitted batches by priority and age, then files in the inbox."""
    if session.scalar(select(SuiteRow.id).limit(1)) is None:
        return []
    waiting = select(BatchRow.id).where(BatchRow.state == "submitted", lacks_verdict(NAME, "batch", BatchRow.id))
    batches = session.scalars(waiting.order_by(BatchRow.priority, BatchRow.submitted_at))
    return [*(Subject("batch", id) for id in batches), *waiting_files(settings.inbox)]


def gate(work: Work) -> Outcome:
    if work.subject.kind == "file":
        return take(work)
    with work.read() as session:
        batch = session.get_one(BatchRow, work.subject.id)
    return gate_batch(work, batch)


def find_mined(session: Session, _settings: Settings) -> list[Subject]:
    """Mined sets, the newest first."""
    waiting = select(MinedRow.checkpoint_id).where(
        MinedRow.artifact.is_not(None), lacks_verdict(NAME, "mined", MinedRow.checkpoint_id)
    )
    return [Subject("mined", id) for id in session.scalars(waiting.order_by(MinedRow.created_at.desc()))]


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Passes batches through the data gate, turns mistakes into verified examples, and measures their effect.",
    emits=(BatchQueued, BatchRejected, BatchStored, BatchSubmitted),
    sweep_s=300.0,
    lanes=(
        Lane("gate", (BatchSubmitted,), find_batches, gate),
        Lane("correct", (ExamplesMined, TaskMeasured), find_mined, correct),
        Lane("measure", (CheckpointEvaluated,), find_measurable, measure),
    ),
    preload=("torch", "transformers", "miner.model_children", "ratchet.inference.local_generator"),
    order=7,
    pending="submitted batches",
)
