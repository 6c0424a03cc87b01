"""The desired deployment: the only writer of the serving state, of blocks on weights, and of their history.

The gate, the watch over a new deployment and the operator call these functions inside a write transaction; each change
of desired state gets a history row in the same transaction. The caller decides whether a change is allowed. The
deployment system then brings the inference server to the desired state, and records here what is live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.events.catalogue import CheckpointDeployed, DeploymentRolledBack
from ratchet.ledger.health import record_damage, resolve_damage
from ratchet.ledger.ledger import Transaction, next_counter
from ratchet.ledger.lineage import MAIN
from ratchet.ledger.tables import BlockRow, CheckpointRow, DeploymentRow, ServingRow

Actor = Literal["setup", "gate", "watch", "operator"]
Action = Literal["base", "deploy", "rollback", "freeze", "unfreeze", "unblock", "reset-fencing"]

CHAMPION_CHANGES: tuple[Action, ...] = ("base", "deploy", "rollback")
"""Actions that make another checkpoint the champion."""

SERVING_SUBJECT = ("deployment", "serving", MAIN)
"""System, kind and id of the subject whose work is to bring the server to the desired state."""


def serving(session: Session) -> ServingRow:
    """Desired and actual deployment. Raises PreconditionFailed before the first run."""
    row = session.get(ServingRow, MAIN)
    if row is None:
        raise PreconditionFailed("this ledger is not set up yet: `ratchet run` does it.")
    return row


def champion(session: Session) -> CheckpointRow:
    """The champion: the checkpoint that should be live."""
    return session.get_one(CheckpointRow, serving(session).desired_id)


def begin(tx: Transaction, base_id: str) -> None:
    """Make the base model the first champion."""
    tx.session.add(ServingRow(name=MAIN, desired_id=base_id, previous_id=None, actual_id=None, since_at=tx.now))
    _note(tx, "base", "setup", base_id, None, "the base model is live from the start", token=0)


def promote(
    tx: Transaction, checkpoint_id: str, champion_id: str, reason: str, numbers: Mapping[str, Any], token: int
) -> str | None:
    """Make the checkpoint the champion in place of the one that it was proved against.

    Idempotent. If an operator froze deployments or changed the champion during the challenge, nothing changes and the
    return value says what the checkpoint has to wait for.
    """
    row = serving(tx.session)
    if row.desired_id == checkpoint_id:
        return None
    if row.frozen_reason is not None:
        return f"`ratchet deploy unfreeze` (frozen: {row.frozen_reason})"
    if row.desired_id != champion_id:
        return f"a challenge of {row.desired_id}, which has replaced {champion_id}"
    deploy(tx, checkpoint_id, "gate", reason, numbers, token, is_proved=True)
    return None


def deploy(
    tx: Transaction,
    checkpoint_id: str,
    actor: Actor,
    reason: str,
    numbers: Mapping[str, Any] | None = None,
    token: int | None = None,
    *,
    is_proved: bool,
) -> None:
    """Make the checkpoint the champion. Without ``token``, a new fencing token is drawn."""
    row = serving(tx.session)
    _note(tx, "deploy", actor, checkpoint_id, row.desired_id, reason, numbers, token)
    row.previous_id, row.desired_id, row.proved, row.since_at = row.desired_id, checkpoint_id, is_proved, tx.now


def roll_back(tx: Transaction, bad_id: str, good_id: str, actor: Actor, reason: str, token: int | None = None) -> str:
    """Block the weights of ``bad_id`` and make ``good_id`` the champion again; returns the id of the champion.

    If an operator has deployed another checkpoint meanwhile, only the weights are blocked.
    """
    bad = tx.session.get_one(CheckpointRow, bad_id)
    if tx.session.get(BlockRow, bad.weights) is None:
        tx.session.add(BlockRow(weights=bad.weights, checkpoint_id=bad.id, reason=reason, created_at=tx.now))
    row = serving(tx.session)
    if row.desired_id != bad_id:
        return row.desired_id
    _note(tx, "rollback", actor, good_id, bad_id, reason, token=token)
    proved = was_proved(tx.session, good_id)
    row.desired_id, row.previous_id, row.proved, row.since_at = good_id, None, proved, tx.now
    tx.emit(DeploymentRolledBack(checkpoint_id=bad_id, to_checkpoint_id=good_id, reason=reason))
    return good_id


def freeze(tx: Transaction, reason: str) -> None:
    """Allow no deployment until ``unfreeze``."""
    row = serving(tx.session)
    _note(tx, "freeze", "operator", row.desired_id, None, reason)
    row.frozen_reason = reason


def unfreeze(tx: Transaction, reason: str) -> None:
    row = serving(tx.session)
    _note(tx, "unfreeze", "operator", row.desired_id, None, reason)
    row.frozen_reason = None


def unblock(tx: Transaction, checkpoint: CheckpointRow, reason: str) -> None:
    """Allow blocked weights again."""
    _note(tx, "unblock", "operator", checkpoint.id, None, reason)
    tx.session.delete(tx.session.get_one(BlockRow, checkpoint.weights))


def note_fencing_reset(tx: Transaction, reason: str) -> None:
    """Record that the fencing counter was raised. The row itself takes the first of the higher tokens."""
    _note(tx, "reset-fencing", "operator", serving(tx.session).desired_id, None, reason)


def note_live(tx: Transaction, checkpoint_id: str | None) -> None:
    """Record what the server reports as live.

    If that is the champion, the fallback ends, its damage is resolved, and the deployment is announced the first time.
    """
    row = serving(tx.session)
    if checkpoint_id == row.desired_id:
        row.fallback_reason = None
        resolve_damage(tx, *SERVING_SUBJECT)
    if checkpoint_id is not None and checkpoint_id == row.desired_id != row.actual_id:
        tx.emit(CheckpointDeployed(checkpoint_id=checkpoint_id, previous_id=row.actual_id))
    row.actual_id, row.actual_at = checkpoint_id, tx.now


def note_fallback(tx: Transaction, champion_id: str, served_id: str | None, artifact: str, error: str) -> None:
    """Record that a damaged champion cannot be served, and what is served instead; None for nothing.

    Does nothing if the champion has changed meanwhile.
    """
    row = serving(tx.session)
    if row.desired_id != champion_id:
        return
    note_live(tx, served_id)
    instead = f"{served_id} is served in the place of the champion {champion_id}" if served_id else "nothing is served"
    row.fallback_reason = f"{instead}, since the champion is damaged: {error}"
    record_damage(tx, artifact, error, *SERVING_SUBJECT, f"{instead}, until the champion can be read again.")


def note_canary(tx: Transaction, checkpoint_id: str, passed: bool, difference: float) -> None:
    """Record the result of the last canary. ``difference`` is of log-probabilities; a non-finite one becomes None."""
    row = serving(tx.session)
    row.canary_id, row.canary_passed, row.canary_at = checkpoint_id, passed, tx.now
    row.canary_difference = difference if isfinite(difference) else None


def was_proved(session: Session, checkpoint_id: str) -> bool:
    """Whether the gate has ever promoted the checkpoint. The base model needs no proof."""
    if session.get_one(CheckpointRow, checkpoint_id).ordinal == 0:
        return True
    promotions = select(DeploymentRow.id).where(
        DeploymentRow.checkpoint_id == checkpoint_id, DeploymentRow.action == "deploy", DeploymentRow.actor == "gate"
    )
    return session.scalar(promotions.limit(1)) is not None


def last_deployment(session: Session, checkpoint_id: str) -> DeploymentRow | None:
    """The newest change that made the checkpoint the champion, other than by a rollback."""
    query = select(DeploymentRow).where(DeploymentRow.checkpoint_id == checkpoint_id, DeploymentRow.action == "deploy")
    return session.scalar(query.order_by(DeploymentRow.id.desc()).limit(1))


def last_rollback(session: Session, checkpoint_id: str) -> DeploymentRow | None:
    """The newest rollback from the checkpoint."""
    query = select(DeploymentRow).where(DeploymentRow.previous_id == checkpoint_id, DeploymentRow.action == "rollback")
    return session.scalar(query.order_by(DeploymentRow.id.desc()).limit(1))


def earlier_champions(session: Session) -> list[str]:
    """Ids of all past champions and the current one, the newest first, each once."""
    changes = select(DeploymentRow.checkpoint_id).where(DeploymentRow.action.in_(CHAMPION_CHANGES))
    return list(dict.fromkeys(session.scalars(changes.order_by(DeploymentRow.id.desc()))))


@dataclass(frozen=True)
class HistoryEntry:
    """One change. ``until_at`` is when the next champion took over; None for the present one and for other actions."""

    action: str
    actor: str
    checkpoint_id: str
    ordinal: int
    previous_id: str | None
    reason: str
    token: int
    at: float
    until_at: float | None

    @property
    def changes_champion(self) -> bool:
        return self.action in CHAMPION_CHANGES


def history(session: Session) -> list[HistoryEntry]:
    """All changes, the oldest first."""
    rows = session.execute(
        select(DeploymentRow, CheckpointRow.ordinal)
        .join(CheckpointRow, CheckpointRow.id == DeploymentRow.checkpoint_id)
        .order_by(DeploymentRow.id.desc())
    )
    entries: list[HistoryEntry] = []
    ends_at: float | None = None
    for row, ordinal in rows:
        is_change = row.action in CHAMPION_CHANGES
        entries.append(
            HistoryEntry(
                action=row.action,
                actor=row.actor,
                checkpoint_id=row.checkpoint_id,
                ordinal=ordinal,
                previous_id=row.previous_id,
                reason=row.reason,
                token=row.token,
                at=row.created_at,
                until_at=ends_at if is_change else None,
            )
        )
        ends_at = row.created_at if is_change else ends_at
    return entries[::-1]


def _note(
    tx: Transaction,
    action: Action,
    actor: Actor,
    checkpoint_id: str,
    previous_id: str | None,
    reason: str,
    numbers: Mapping[str, Any] | None = None,
    token: int | None = None,
) -> None:
    tx.session.add(
        DeploymentRow(
            action=action,
            actor=actor,
            checkpoint_id=checkpoint_id,
            previous_id=previous_id,
            reason=reason,
            numbers=dict(numbers or {}),
            token=token if token is not None else next_counter(tx.session, "fencing"),
            created_at=tx.now,
        )
    )
