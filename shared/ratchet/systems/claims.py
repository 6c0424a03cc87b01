"""Claims with fencing tokens: who works on a subject, and what counts against it.

A claim row lives until its subject has a verdict. ``failures`` counts raised errors, ``kills`` counts processes that
are known to have died over it: the successor of a worker's name counts for the worker, the parent for its child. A
lease that merely ran out (the ledger away, a frozen host) counts for nothing. Tokens come from one counter and only
grow, so a late owner is always recognised.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from ratchet.errors import ClaimLost
from ratchet.ledger import Transaction
from ratchet.ledger.ledger import next_counter
from ratchet.ledger.tables import ClaimRow
from ratchet.systems.verdict import Subject


@dataclass(frozen=True)
class Claim:
    """A held claim. ``token`` fences every commit that rests on it."""

    system: str
    subject: Subject
    owner: str
    token: int
    failures: int
    kills: int


def take(tx: Transaction, system: str, subject: Subject, owner: str, lease_s: float) -> Claim | None:
    """Claim a subject, or None while an owner's lease runs or the subject rests after a failure."""
    row = tx.session.get(ClaimRow, (system, subject.kind, subject.id))
    if row is None:
        row = _new_row(system, subject, tx.now)
        tx.session.add(row)
    elif (row.owner is not None and row.expires_at > tx.now) or row.not_before_at > tx.now:
        return None
    row.token = next_counter(tx.session, "fencing")
    row.owner, row.claimed_at, row.heartbeat_at = owner, tx.now, tx.now
    row.expires_at, row.progress, row.note = tx.now + lease_s, 0, ""
    return Claim(system, subject, owner, row.token, row.failures, row.kills)


def require(tx: Transaction, claim: Claim) -> ClaimRow:
    """The claim's row, if the token is still the newest. Raises ClaimLost where another owner has taken over."""
    row = tx.session.get(ClaimRow, (claim.system, claim.subject.kind, claim.subject.id))
    if row is None or row.token != claim.token or row.owner != claim.owner:
        raise ClaimLost(f"{claim.system} lost {claim.subject}: token {claim.token} is stale.")
    return row


def renew(tx: Transaction, claim: Claim, lease_s: float, progress: int, note: str) -> None:
    """Extend the lease and note the progress. Raises ClaimLost."""
    row = require(tx, claim)
    row.heartbeat_at, row.expires_at = tx.now, tx.now + lease_s
    row.progress, row.note = progress, note


def release(tx: Transaction, claim: Claim) -> None:
    """Give the subject back, uncounted. The row goes too, unless it has something to remember."""
    row = require(tx, claim)
    row.owner = None
    if not row.failures and not row.kills:
        tx.session.delete(row)


def put_off(tx: Transaction, claim: Claim, rest_s: float) -> None:
    """Give the subject back, uncounted, and let it rest."""
    row = require(tx, claim)
    row.owner, row.not_before_at = None, tx.now + rest_s


def count_failure(tx: Transaction, claim: Claim, rest_s: float) -> ClaimRow:
    """Count a raised error against the subject and let it rest."""
    row = require(tx, claim)
    row.failures, row.owner, row.not_before_at = row.failures + 1, None, tx.now + rest_s
    return row


def count_kill(tx: Transaction, claim: Claim, rest_s: float) -> ClaimRow:
    """Count the violent death of the subject's process against it and let it rest."""
    row = require(tx, claim)
    row.kills, row.owner, row.not_before_at = row.kills + 1, None, tx.now + rest_s
    return row


def finish(tx: Transaction, claim: Claim) -> None:
    """Drop the claim in the transaction of its verdict. Raises ClaimLost for a stale token."""
    tx.session.delete(require(tx, claim))


def inherited(session: Session, owner: str) -> list[Claim]:
    """What an earlier process of this worker's name still holds; the lock on the name proves that it is dead."""
    rows = session.scalars(select(ClaimRow).where(ClaimRow.owner == owner))
    return [
        Claim(row.system, Subject(row.subject_kind, row.subject_id), owner, row.token, row.failures, row.kills)
        for row in rows
    ]


def next_due_at(session: Session, system: str) -> float | None:
    """When the next claim of this system expires or ends its rest, so that somebody should look; in the past if now."""
    due_at = case((ClaimRow.owner.is_not(None), ClaimRow.expires_at), else_=ClaimRow.not_before_at)
    found: float | None = session.scalar(select(func.min(due_at)).where(ClaimRow.system == system))
    return found


def _new_row(system: str, subject: Subject, now: float) -> ClaimRow:
    return ClaimRow(
        system=system,
        subject_kind=subject.kind,
        subject_id=subject.id,
        token=0,
        owner=None,
        first_at=now,
        claimed_at=now,
        heartbeat_at=now,
        expires_at=now,
        not_before_at=now,
        progress=0,
        note="",
        failures=0,
        kills=0,
    )
