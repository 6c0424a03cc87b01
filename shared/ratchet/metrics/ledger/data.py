"""The training queue in examples and in time, batches, and the line of training."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.line import unjudged
from ratchet.ledger.queue import depth
from ratchet.ledger.supply import shortage, supply
from ratchet.ledger.tables import BatchRow, CheckpointRow, LineageRow, VerdictRow
from ratchet.metrics.exposition import gauge, single
from ratchet.settings import Settings

BATCH_STATES = ("submitted", "queued", "training", "trained", "rejected", "quarantined", "skipped")


def data(session: Session, _now: float, settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Queue depth by where the examples stand, its marks, and batches by state."""
    found = depth(session)
    places = {"submitted": found.submitted, "queued": found.queued, "running": found.running}
    yield gauge(
        "ratchet_queue_examples",
        "Examples on their way to training.",
        ("place",),
        (((place,), float(count)) for place, count in places.items()),
    )
    yield single("ratchet_queue_low_water_examples", "Below it generation is called.", settings.queue.low_water)
    yield single("ratchet_queue_high_water_examples", "Generation stops at it.", settings.queue.high_water)
    yield from _supply(session, settings)
    counts = dict(session.execute(select(BatchRow.state, func.count()).group_by(BatchRow.state)).all())
    yield gauge(
        "ratchet_batches",
        "Batches by state.",
        ("state",),
        (((state,), float(counts.get(state, 0))) for state in dict.fromkeys((*BATCH_STATES, *counts))),
    )
    quarantined = session.scalar(select(func.sum(BatchRow.quarantined))) or 0
    yield single("ratchet_quarantined_examples", "Rows that the gate has put aside.", float(quarantined))


def _supply(session: Session, settings: Settings) -> Iterator[GaugeMetricFamily]:
    found = supply(session)
    left_s = found.minutes * 60 if found.minutes is not None else None
    yield single("ratchet_queue_tokens", "Trainable tokens in the queue.", found.tokens)
    yield single("ratchet_queue_left_seconds", "How long it lasts at the speed of the last segments.", left_s)
    yield single(
        "ratchet_queue_short",
        "1 while it is below one of its low marks: examples, tokens or minutes.",
        shortage(found, settings.queue) is not None,
    )


def line(session: Session, _now: float, settings: Settings) -> Iterator[GaugeMetricFamily]:
    """Checkpoints and the line of training."""
    main = session.scalar(select(LineageRow).limit(1))
    newest = session.execute(
        select(CheckpointRow.ordinal, CheckpointRow.step, CheckpointRow.tokens, CheckpointRow.created_at)
        .order_by(CheckpointRow.ordinal.desc())
        .limit(1)
    ).one_or_none()
    yield single("ratchet_training_paused", "1 while a human has paused it.", None if main is None else main.paused)
    yield single("ratchet_checkpoint_newest_ordinal", "Number of the newest checkpoint.", newest and newest.ordinal)
    yield single("ratchet_checkpoint_newest_step", "Optimizer steps of the newest checkpoint.", newest and newest.step)
    yield single("ratchet_checkpoint_newest_tokens", "Tokens that it was trained on.", newest and newest.tokens)
    yield single("ratchet_checkpoint_newest_timestamp_seconds", "When it was saved.", newest and newest.created_at)
    yield single(
        "ratchet_checkpoints_unjudged",
        "Saved checkpoints that are newer than any that testing has judged.",
        unjudged(session),
    )
    yield single("ratchet_checkpoints_unjudged_limit", "So many make training wait.", settings.queue.unjudged_limit)
    yield single(
        "ratchet_training_segment_max_seconds",
        "A checkpoint is due at least so often.",
        settings.hyperparams.segment_max_s,
    )
    yield single(
        "ratchet_training_quarantined_timestamp_seconds",
        "When training last gave up a batch whose loss diverged, 0 if never.",
        _last_quarantine(session),
    )


def _last_quarantine(session: Session) -> float:
    query = select(func.max(VerdictRow.created_at)).where(
        VerdictRow.system == "training", VerdictRow.outcome == "quarantined"
    )
    return session.scalar(query) or 0.0
