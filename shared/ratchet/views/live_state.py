"""What is live: the present deployment with its proof and its watch, what may take its place, and what was before."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.deployments import (
    CHAMPION_CHANGES,
    SERVING_SUBJECT,
    HistoryEntry,
    history,
    last_deployment,
    was_proved,
)
from ratchet.ledger.drills import last_drill, pending
from ratchet.ledger.tables import (
    BlockRow,
    ChallengeRow,
    CheckpointRow,
    ClaimRow,
    DeploymentRow,
    DrillRow,
    ServingRow,
)
from ratchet.views.proof import Proof, proof_of

OFFERED = 30
"""Checkpoints that are offered for a deployment by hand, the newest."""


@dataclass(frozen=True)
class Block:
    """Weights that were rolled back."""

    ordinal: int | None
    checkpoint_id: str
    reason: str
    at: float


@dataclass(frozen=True)
class Challenge:
    """A challenge of the present champion. ``outcome`` is None while it is open."""

    ordinal: int
    k: int
    outcome: str | None
    at: float


@dataclass(frozen=True)
class Offered:
    """A checkpoint that could be deployed by hand."""

    ordinal: int
    is_proved: bool


@dataclass(frozen=True)
class LiveState:
    """``proof`` is the gate's evidence for the champion (None for the base model, or one that an operator deployed).

    ``working`` is what the deployer says that it does at the server, such as watching a new champion. ``drill`` is the
    last rollback drill that has ended, ``next_drill`` one that has not.
    """

    serving: ServingRow
    champion: CheckpointRow
    actual: int | None
    previous: int | None
    reason: str
    actor: str
    proof: Proof | None
    replaced: int | None
    working: str | None
    challenges: list[Challenge]
    blocks: list[Block]
    offered: list[Offered]
    drill: DrillRow | None
    next_drill: DrillRow | None


def live_state(session: Session) -> LiveState | None:
    """The present state; None before the first run has published the base model."""
    serving = session.scalar(select(ServingRow).limit(1))
    if serving is None:
        return None
    champion = session.get_one(CheckpointRow, serving.desired_id)
    changes = select(DeploymentRow).where(DeploymentRow.action.in_(CHAMPION_CHANGES))
    change = session.scalar(changes.order_by(DeploymentRow.id.desc()).limit(1))
    deployed = last_deployment(session, champion.id)
    return LiveState(
        serving=serving,
        champion=champion,
        actual=_ordinal(session, serving.actual_id),
        previous=_ordinal(session, serving.previous_id),
        reason=change.reason if change else "",
        actor=change.actor if change else "",
        proof=proof_of(deployed.numbers) if deployed is not None else None,
        replaced=_ordinal(session, deployed.previous_id) if deployed is not None else None,
        working=_working(session),
        challenges=_challenges(session, champion.id),
        blocks=_blocks(session),
        offered=_offered(session, champion.id),
        drill=last_drill(session),
        next_drill=pending(session),
    )


def changes_page(session: Session, limit: int, offset: int) -> tuple[list[HistoryEntry], int]:
    """The changes of what is served, the newest first, and how many there are."""
    entries = history(session)[::-1]
    return entries[offset : offset + limit], len(entries)


def _ordinal(session: Session, checkpoint_id: str | None) -> int | None:
    return session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == checkpoint_id))


def _working(session: Session) -> str | None:
    system, kind, subject = SERVING_SUBJECT
    note = select(ClaimRow.note).where(ClaimRow.system == system, ClaimRow.owner.is_not(None))
    found = session.scalars(note.where((ClaimRow.subject_kind != kind) | (ClaimRow.subject_id == subject))).all()
    return next((text for text in found if text), None)


def _challenges(session: Session, champion_id: str) -> list[Challenge]:
    query = select(ChallengeRow, CheckpointRow.ordinal).join(
        CheckpointRow, CheckpointRow.id == ChallengeRow.challenger_id
    )
    rows = session.execute(query.where(ChallengeRow.champion_id == champion_id).order_by(ChallengeRow.k.desc()))
    return [Challenge(ordinal, row.k, row.outcome, row.created_at) for row, ordinal in rows]


def _blocks(session: Session) -> list[Block]:
    query = select(BlockRow, CheckpointRow.ordinal).outerjoin(CheckpointRow, CheckpointRow.id == BlockRow.checkpoint_id)
    rows = session.execute(query.order_by(BlockRow.created_at.desc()))
    return [Block(ordinal, row.checkpoint_id, row.reason, row.created_at) for row, ordinal in rows]


def _offered(session: Session, champion_id: str) -> list[Offered]:
    blocked = select(BlockRow.weights)
    query = select(CheckpointRow).where(
        CheckpointRow.state == "saved", CheckpointRow.id != champion_id, CheckpointRow.weights.not_in(blocked)
    )
    rows = session.scalars(query.order_by(CheckpointRow.ordinal.desc()).limit(OFFERED))
    return [Offered(row.ordinal, was_proved(session, row.id)) for row in rows]
