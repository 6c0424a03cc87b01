"""Poison: a subject that keeps failing goes to the dead letters, blocks nobody, and can be retried."""

from __future__ import annotations

import traceback
from enum import Enum, auto

from sqlalchemy import func, select

from ratchet.backoff import pause_s
from ratchet.errors import ArtifactError, DataError, PreconditionFailed
from ratchet.ledger import Transaction
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, VerdictRow
from ratchet.settings.control import ControlSettings
from ratchet.systems import claims
from ratchet.systems.claims import Claim

IN_A_ROW = 3
"""So many subjects that a system gives up without deciding on any other: what befalls the next is not its own fault."""


class Counted(Enum):
    """What became of a subject whose failure was counted."""

    RESTS = auto()
    DEAD = auto()
    SHARED = auto()
    """It would be dead, but others have died of errors just before it and none has succeeded: it is kept and rests."""


def count(tx: Transaction, claim: Claim, error: Exception, killed: bool, settings: ControlSettings) -> Counted:
    """Count an error (or the violent death of the child) against the subject; bury it when it has had its tries.

    An error that says itself what is wrong with the subject (its rows, its files) is never taken for that of others.
    """
    rest_s = pause_s(claim.failures + claim.kills + 1, settings.backoff_first_s, settings.backoff_last_s)
    row = claims.count_kill(tx, claim, rest_s) if killed else claims.count_failure(tx, claim, rest_s)
    is_own = isinstance(error, DataError | ArtifactError)
    if row.failures >= settings.poison_failures and not is_own and _is_shared(tx, claim, row.first_at):
        row.failures, row.not_before_at = settings.poison_failures - 1, tx.now + settings.backoff_last_s
        return Counted.SHARED
    if row.failures >= settings.poison_failures or (
        row.kills >= settings.poison_kills and _others_succeed(tx, claim, row.first_at)
    ):
        _dead(tx, row, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))
        return Counted.DEAD
    return Counted.RESTS


def count_death(tx: Transaction, claim: Claim, settings: ControlSettings) -> None:
    """Count the death of the worker that held the claim; the first time the subject is free again at once."""
    rest_s = min(settings.backoff_last_s, settings.backoff_first_s * (2**claim.kills - 1))
    row = claims.count_kill(tx, claim, rest_s)
    if row.kills >= settings.poison_kills and _others_succeed(tx, claim, row.first_at):
        _dead(tx, row, "its process died again and again", "")


def overdue(tx: Transaction, claim: Claim, settings: ControlSettings) -> bool:
    """Whether the subject just claimed has killed its processes too often, while other subjects succeeded."""
    row = claims.require(tx, claim)
    return row.kills >= settings.poison_kills and _others_succeed(tx, claim, row.first_at)


def bury(tx: Transaction, claim: Claim, error: str, trace: str) -> None:
    """Send a claimed subject to the dead letters."""
    _dead(tx, claims.require(tx, claim), error, trace)


def retry(tx: Transaction, dead_letter_id: int, who: str) -> DeadLetterRow:
    """Give a dead subject another life with a clean count.

    Raises PreconditionFailed if there is no such open dead letter.
    """
    letter = tx.session.get(DeadLetterRow, dead_letter_id)
    if letter is None or letter.resolved_at is not None:
        raise PreconditionFailed(f"there is no open dead letter {dead_letter_id}; `ratchet dead` lists them.")
    letter.resolved_at, letter.resolution = tx.now, f"retried by {who}"
    return letter


def _is_shared(tx: Transaction, claim: Claim, since: float) -> bool:
    """Whether others were given up before this one, and none has succeeded since it was first tried."""
    return _given_up_in_a_row(tx, claim.system) >= IN_A_ROW and not _others_succeed(tx, claim, since)


def _given_up_in_a_row(tx: Transaction, system: str) -> int:
    """Subjects that the system has given up for their errors since it last decided on one."""
    decided = select(func.max(VerdictRow.created_at)).where(VerdictRow.system == system).scalar_subquery()
    letters = select(func.count()).where(
        DeadLetterRow.system == system,
        DeadLetterRow.resolved_at.is_(None),
        DeadLetterRow.failures > 0,
        DeadLetterRow.subject_kind != "event",
        DeadLetterRow.created_at > func.coalesce(decided, 0.0),
    )
    return tx.session.scalar(letters) or 0


def _others_succeed(tx: Transaction, claim: Claim, since: float) -> bool:
    mine = (VerdictRow.subject_kind == claim.subject.kind) & (VerdictRow.subject_id == claim.subject.id)
    others = select(VerdictRow.id).where(VerdictRow.system == claim.system, VerdictRow.created_at >= since, ~mine)
    return tx.session.scalar(others.limit(1)) is not None


def _dead(tx: Transaction, row: ClaimRow, error: str, trace: str) -> None:
    tx.session.add(
        DeadLetterRow(
            system=row.system,
            subject_kind=row.subject_kind,
            subject_id=row.subject_id,
            error=error,
            traceback=trace,
            failures=row.failures,
            kills=row.kills,
            created_at=tx.now,
            resolved_at=None,
            resolution=None,
        )
    )
    tx.session.delete(row)
