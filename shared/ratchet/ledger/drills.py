"""Rollback drills: requests for one, what the deployment system does about it, and how the last ones ended.

This module is the only writer of the table. It does not know how a drill is carried out: that is in deployer.drill.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from ratchet.ledger.deployments import serving
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import DeploymentRow, DrillRow

KIND = "drill"
"""The kind of subject that a drill is for the deployment system; its id is the row's."""

Outcome = Literal["caught", "not caught", "failed"]

STEPS = {
    "control": "the live champion passes its own canary",
    "plant": "a copy of the champion with one damaged matrix is made",
    "load": "the server loads it beside the champion",
    "canary": "its answers are compared with the champion's record",
    "return": "it is unloaded, and the champion switched to as in a rollback",
}
"""The steps in order, each with what happens in it."""


def request(tx: Transaction, by: str, reason: str) -> tuple[DrillRow, bool]:
    """The unfinished drill if there is one, else a new request; and whether it is new.

    Raises PreconditionFailed before the first run.
    """
    serving(tx.session)
    waiting = pending(tx.session)
    if waiting is not None:
        return waiting, False
    row = DrillRow(requested_at=tx.now, requested_by=by, reason=reason, attempts=0, detail="", steps={})
    tx.session.add(row)
    tx.session.flush()
    return row, True


def pending(session: Session) -> DrillRow | None:
    """The drill that is neither finished nor given up, the oldest."""
    is_open = lacks_verdict("deployment", KIND, cast(DrillRow.id, String))
    query = select(DrillRow).where(DrillRow.finished_at.is_(None), is_open)
    return session.scalar(query.order_by(DrillRow.id).limit(1))


def drill(session: Session, drill_id: int) -> DrillRow:
    return session.get_one(DrillRow, drill_id)


def note_waiting(tx: Transaction, drill_id: int, waiting_for: str) -> None:
    """Record why the drill cannot begin yet."""
    drill(tx.session, drill_id).waiting_for = waiting_for


def call_off(tx: Transaction, drill_id: int, waiting_for: str) -> None:
    """Record that an attempt was ended for something else, and does not count. The drill begins anew after that."""
    row = drill(tx.session, drill_id)
    row.attempts, row.waiting_for, row.started_at, row.steps = row.attempts - 1, waiting_for, None, {}


def note_interruption(tx: Transaction, drill_id: int, error: str) -> None:
    """Record what ended an attempt."""
    drill(tx.session, drill_id).detail = error


def begin(tx: Transaction, drill_id: int, checkpoint_id: str, weights: str) -> None:
    """Record that an attempt begins, and the live checkpoint that the server reports."""
    row = drill(tx.session, drill_id)
    row.attempts, row.started_at, row.waiting_for, row.steps = row.attempts + 1, tx.now, None, {}
    row.before_id, row.before_weights = checkpoint_id, weights


def note_planted(tx: Transaction, drill_id: int, artifact: str | None) -> None:
    """Record the planted artifact, before it is published, or None after it has been deleted."""
    drill(tx.session, drill_id).planted_artifact = artifact


def note_step(tx: Transaction, drill_id: int, step: str, took_s: float) -> None:
    row = drill(tx.session, drill_id)
    row.steps = {**row.steps, step: took_s}


def finish(
    tx: Transaction, drill_id: int, outcome: Outcome, detail: str, live_id: str | None, live_weights: str | None
) -> None:
    """Record how the drill ended, and what the server reports as live afterwards (None for nothing)."""
    row = drill(tx.session, drill_id)
    row.outcome, row.detail, row.finished_at, row.waiting_for = outcome, detail, tx.now, None
    row.after_id, row.after_weights = live_id, live_weights


def last_drill(session: Session) -> DrillRow | None:
    """The drill that was finished last."""
    query = select(DrillRow).where(DrillRow.finished_at.is_not(None))
    return session.scalar(query.order_by(DrillRow.finished_at.desc()).limit(1))


def age_s(session: Session, now: float) -> float | None:
    """Seconds since a drill was last caught; before the first one, since the first run. None before that.

    A drill that was not caught, or failed, proves nothing, so it does not count.
    """
    caught = session.scalar(select(func.max(DrillRow.finished_at)).where(DrillRow.outcome == "caught"))
    since = caught or session.scalar(select(func.min(DeploymentRow.created_at)))
    return None if since is None else max(0.0, now - since)
