"""Counting cycles: a cycle is a trained checkpoint that has all its verdicts (``System.per_checkpoint``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import CheckpointRow, DeadLetterRow, VerdictRow
from ratchet.systems import registry

DECIDER = "deployment"
"""Its verdict is the outcome of a cycle; those of the others come before it."""


@dataclass(frozen=True)
class Decided:
    """A checkpoint whose cycle is complete. ``judged_at``: all but the deployer spoke; ``decided_at``: all did."""

    checkpoint_id: str
    ordinal: int
    outcome: str
    judged_at: float
    decided_at: float


def decided(session: Session) -> list[Decided]:
    """All complete cycles, in the order of the checkpoints. The base model is not a cycle.

    A dead letter counts as a verdict here: the checkpoint is given up until a person retries it. A checkpoint that
    testing called broken is judged by no other system; one that it called superseded was never judged, and is no cycle.
    """
    trained = session.execute(
        select(CheckpointRow.id, CheckpointRow.ordinal, CheckpointRow.state)
        .where(CheckpointRow.ordinal > 0)
        .order_by(CheckpointRow.ordinal)
    ).all()
    systems = registry.per_checkpoint(session)
    words = _words(session, systems)
    found = (_decision(id_, ordinal, state, words.get(id_, {}), systems) for id_, ordinal, state in trained)
    return [decision for decision in found if decision is not None]


def _words(session: Session, systems: Sequence[str]) -> dict[str, dict[str, tuple[str, float]]]:
    """By checkpoint and system: outcome and time of the verdict, or of the dead letter."""
    words: dict[str, dict[str, tuple[str, float]]] = {}
    letters = select(DeadLetterRow.subject_id, DeadLetterRow.system, DeadLetterRow.created_at).where(
        DeadLetterRow.subject_kind == "checkpoint", DeadLetterRow.resolved_at.is_(None)
    )
    for checkpoint_id, system, at in session.execute(letters):
        words.setdefault(checkpoint_id, {})[system] = ("dead", at)
    verdicts = select(VerdictRow.subject_id, VerdictRow.system, VerdictRow.outcome, VerdictRow.created_at).where(
        VerdictRow.subject_kind == "checkpoint", VerdictRow.system.in_(systems)
    )
    for checkpoint_id, system, outcome, at in session.execute(verdicts):
        words.setdefault(checkpoint_id, {})[system] = (outcome, at)
    return words


def _decision(
    checkpoint_id: str, ordinal: int, state: str, words: dict[str, tuple[str, float]], systems: Sequence[str]
) -> Decided | None:
    given = {system: words[system] for system in systems if system in words}
    testing = given.get("testing", ("", 0.0))[0]
    if testing == "dead" or (testing and state == "broken"):
        at = given["testing"][1]
        return Decided(checkpoint_id, ordinal, testing, at, at)
    if len(given) < len(systems) or DECIDER not in given:
        return None
    judged_at = max(at for system, (_, at) in given.items() if system != DECIDER)
    outcome, at = given[DECIDER]
    return Decided(checkpoint_id, ordinal, outcome, judged_at, max(judged_at, at))
