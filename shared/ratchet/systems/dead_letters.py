"""The retry limit: a subject that keeps failing becomes a dead letter until it is retried, so that it blocks no other.

An error that many subjects have in common does not count against each of them.
"""

from __future__ import annotations

import traceback
from enum import Enum, auto

from sqlalchemy import func, select

from ratchet.backoff import FIRST_S, pause_s
from ratchet.errors import ArtifactError, DataError, PreconditionFailed
from ratchet.ledger import Transaction
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, VerdictRow
from ratchet.settings.control import ControlSettings
from ratchet.systems import claims
from ratchet.systems.claims import Claim

IN_A_ROW = 3
"""After this many subjects in a row were given up, the next error is taken to be common to all subjects."""


class Counted(Enum):
    """The result of counting a failure against a subject."""

    RETRIED = auto()
    DEAD = auto()
    SHARED = auto()
    """It reached the limit, but others were given up just before it and none has succeeded, so it is tried again."""


def record_failure(tx: Transaction, claim: Claim, error: Exception, killed: bool, settings: ControlSettings) -> Counted:
    """Count an error, or the death of its child by a signal, against the subject. At the limit it becomes a dead
    letter.

    An error about the subject's own rows or files is never taken to be common to all.
    """
    rest_s = pause_s(claim.failures + claim.kills + 1, FIRST_S, settings.max_backoff_s)
    row = claims.count_kill(tx, claim, rest_s) if killed else claims.count_failure(tx, claim, rest_s)
    is_own = isinstance(error, DataError | ArtifactError)
    if row.failures >= settings.max_failures and not is_own and _is_shared(tx, claim, row.first_at):
        row.failures, row.not_before_at = settings.max_failures - 1, tx.now + settings.max_backoff_s
        return Counted.SHARED
    if row.failures >= settings.max_failures or (
        row.kills >= settings.max_kills and _others_succeed(tx, claim, row.first_at)
    ):
        _write(tx, row, f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))
        return Counted.DEAD
    return Counted.RETRIED


def record_death(tx: Transaction, claim: Claim, settings: ControlSettings) -> None:
    """Count the death of the worker that held the claim. After the first one, the subject can be claimed at once."""
    rest_s = min(settings.max_backoff_s, FIRST_S * (2**claim.kills - 1))
    row = claims.count_kill(tx, claim, rest_s)
    if row.kills >= settings.max_kills and _others_succeed(tx, claim, row.first_at):
        _write(tx, row, "its process died repeatedly", "")


def is_over_kill_limit(tx: Transaction, claim: Claim, settings: ControlSettings) -> bool:
    """Whether the subject just claimed has killed its processes too often, while other subjects succeeded."""
    row = claims.require(tx, claim)
    return row.kills >= settings.max_kills and _others_succeed(tx, claim, row.first_at)


def dead_letter(tx: Transaction, claim: Claim, error: str, trace: str) -> None:
    """Make a dead letter of a claimed subject."""
    _write(tx, claims.require(tx, claim), error, trace)


def retry(tx: Transaction, dead_letter_id: int, who: str) -> DeadLetterRow:
    """Resolve a dead letter, so that its subject is tried again with its failure count reset.

    Raises PreconditionFailed if there is no such open dead letter.
    """
    letter = tx.session.get(DeadLetterRow, dead_letter_id)
    if letter is None or letter.resolved_at is not None:
        raise PreconditionFailed(f"there is no open dead letter {dead_letter_id}; `ratchet dead list` has them.")
    letter.resolved_at, letter.resolution = tx.now, f"retried by {who}"
    return letter


def _is_shared(tx: Transaction, claim: Claim, since: float) -> bool:
    """Whether others were given up before this subject, and none has succeeded since its first attempt."""
    return _given_up_in_a_row(tx, claim.system) >= IN_A_ROW and not _others_succeed(tx, claim, since)


def _given_up_in_a_row(tx: Transaction, system: str) -> int:
    """The number of subjects given up for their errors since the system's last verdict."""
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


def _write(tx: Transaction, row: ClaimRow, error: str, trace: str) -> None:
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
