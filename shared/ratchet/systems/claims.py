"""Claims with fencing tokens: which worker has a subject, and the failures that count against it.

A claim row lives until its subject has a verdict. ``failures`` counts raised errors, ``kills`` counts processes that
are known to have died while working on it: a worker's death is counted by the next worker of its name, a child's by its
parent. A lease that merely ran out (the ledger away, a frozen host) is not counted. Tokens come from one counter and
only grow, so a late owner is always recognised.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from ratchet.errors import ClaimLost, TransientError
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.ledger import clock, next_counter
from ratchet.ledger.tables import ClaimRow
from ratchet.settings.control import ControlSettings
from ratchet.watchdog import LONGEST_CALL_S, Watchdog, WatchedThread

log = logging.getLogger(__name__)

HEARTBEATS = 6
"""Heartbeats per lease, so that a few may fail before another worker takes the subject over."""

CLOCK_TOLERANCE_S = 1.0
"""Transactions that overlap may commit in another order than they began."""

STATUS_S = 2.0
"""How often a changed status is written."""


@dataclass(frozen=True)
class Subject:
    """The thing that a system decides about: its kind (``checkpoint``, ``batch``, ``request``, ``refill`` …) and id."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass
class Pulse:
    """Progress of the running work. The heartbeat writes it to the claim; the liveness check requires that it advances.

    ``about`` names the subject. ``status`` may return more details for people as small JSON; it is called every
    ``STATUS_S``. ``lost`` is set once another worker has taken the claim over. ``stop_s`` is the longest time that the
    work needs to save its results and stop, if that is longer than ``control.grace_s``; ``stop_note`` says what it does
    in that time.
    """

    about: str = ""
    count: int = 0
    note: str = ""
    status: Callable[[], dict[str, Any]] | None = None
    lost: bool = False
    stop_s: float = 0.0
    stop_note: str = ""

    def beat(self, note: str = "") -> None:
        self.count += 1
        self.note = note or self.note


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
    """Claim a subject. Returns None while another owner's lease or a pause after a failure lasts."""
    row = tx.session.get(ClaimRow, (system, subject.kind, subject.id))
    if row is None:
        row = _new_row(system, subject, tx.now)
        tx.session.add(row)
    elif (row.owner is not None and row.expires_at > tx.now) or row.not_before_at > tx.now:
        return None
    row.token = next_counter(tx.session, "fencing")
    row.owner, row.claimed_at, row.heartbeat_at = owner, tx.now, tx.now
    row.expires_at, row.progress, row.note, row.status = tx.now + lease_s, 0, "", {}
    return Claim(system, subject, owner, row.token, row.failures, row.kills)


def require(tx: Transaction, claim: Claim) -> ClaimRow:
    """The claim's row, if the token is still the newest. Raises ClaimLost where another owner has taken over."""
    row = tx.session.get(ClaimRow, (claim.system, claim.subject.kind, claim.subject.id))
    if row is None or row.token != claim.token or row.owner != claim.owner:
        raise ClaimLost(f"{claim.system} lost {claim.subject}: token {claim.token} is stale.")
    return row


def renew(
    tx: Transaction, claim: Claim, lease_s: float, progress: int, note: str, status: dict[str, Any] | None = None
) -> None:
    """Extend the lease and record the progress. Raises ClaimLost."""
    row = require(tx, claim)
    row.heartbeat_at, row.expires_at = tx.now, tx.now + lease_s
    row.progress, row.note = progress, note
    if status is not None:
        row.status = status


def release(tx: Transaction, claim: Claim) -> None:
    """Release the claim without counting a failure. Its row is deleted unless it has failures."""
    row = require(tx, claim)
    row.owner = None
    if not row.failures and not row.kills:
        tx.session.delete(row)


def postpone(tx: Transaction, claim: Claim, rest_s: float) -> None:
    """Release the claim without counting a failure; the subject can be claimed again after ``rest_s``."""
    row = require(tx, claim)
    row.owner, row.heartbeat_at, row.not_before_at = None, tx.now, tx.now + rest_s


def count_failure(tx: Transaction, claim: Claim, rest_s: float) -> ClaimRow:
    """Count a raised error against the subject, which can be claimed again after ``rest_s``."""
    row = require(tx, claim)
    row.failures, row.owner, row.heartbeat_at = row.failures + 1, None, tx.now
    row.not_before_at = tx.now + rest_s
    return row


def count_kill(tx: Transaction, claim: Claim, rest_s: float) -> ClaimRow:
    """Count the death of the subject's process by a signal; the subject can be claimed again after ``rest_s``."""
    row = require(tx, claim)
    row.kills, row.owner, row.heartbeat_at = row.kills + 1, None, tx.now
    row.not_before_at = tx.now + rest_s
    return row


def finish(tx: Transaction, claim: Claim) -> None:
    """Drop the claim in the transaction of its verdict. Raises ClaimLost for a stale token."""
    tx.session.delete(require(tx, claim))


def inherited(session: Session, owner: str) -> list[Claim]:
    """Claims that an earlier process of this worker's name still holds; the lock on the name proves that it is dead."""
    rows = session.scalars(select(ClaimRow).where(ClaimRow.owner == owner))
    return [
        Claim(row.system, Subject(row.subject_kind, row.subject_id), owner, row.token, row.failures, row.kills)
        for row in rows
    ]


def follow_clock(ledger: Ledger, system: str) -> None:
    """Move leases and pauses back with a clock that was set back; else a dead owner would keep its claims for as long.

    A row's last heartbeat then lies in the future. A living owner's next one writes the new time anyway.
    """
    with ledger.read() as session:
        ahead = ClaimRow.heartbeat_at > clock(session) + CLOCK_TOLERANCE_S
        if session.scalar(select(ClaimRow.token).where(ClaimRow.system == system, ahead).limit(1)) is None:
            return
    with ledger.write() as tx:
        for row in tx.session.scalars(
            select(ClaimRow).where(ClaimRow.system == system, ClaimRow.heartbeat_at > tx.now)
        ):
            back_s = row.heartbeat_at - tx.now
            log.warning("the clock was set back: the claim on %s ends %.0f s earlier", row.subject_id, back_s)
            row.heartbeat_at, row.claimed_at = tx.now, min(row.claimed_at, tx.now)
            row.expires_at, row.not_before_at = row.expires_at - back_s, row.not_before_at - back_s


def next_due_at(session: Session, system: str) -> float | None:
    """The next time at which a claim of this system expires or a pause ends. A time in the past means now."""
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
        status={},
        failures=0,
        kills=0,
    )


class HeldClaims:
    """The claims that a worker holds. A release that fails while the ledger is unavailable is repeated later."""

    def __init__(self, ledger: Ledger):
        self._ledger = ledger
        self._held: dict[int, Claim] = {}
        self._unreleased: dict[int, Claim] = {}

    def add(self, claim: Claim) -> None:
        self._held[claim.token] = claim

    def drop(self, claim: Claim) -> None:
        """Forget a claim whose subject has its verdict, or whose failure is counted."""
        self._held.pop(claim.token, None)

    def release(self, claim: Claim) -> None:
        """Release the claim without counting a failure; if the ledger is unavailable, ``retry_releases`` does it."""
        self._held.pop(claim.token, None)
        self._unreleased[claim.token] = claim
        try:
            self.retry_releases()
        except TransientError as error:
            log.info("the claim on %s is released later: %s", claim.subject, error)

    def retry_releases(self) -> None:
        """Repeat failed releases. Raises TransientError while the ledger is unavailable."""
        for token, claim in list(self._unreleased.items()):
            try:
                with self._ledger.write() as tx:
                    release(tx, claim)
            except ClaimLost as error:
                log.info("nothing to release: %s", error)
            self._unreleased.pop(token, None)

    def release_all(self) -> None:
        """Release all claims, even of running work; a late commit of such work is rejected."""
        for claim in list(self._held.values()):
            self.release(claim)


class Heartbeat:
    """Renews a claim from its own thread until the block ends. A lost claim ends both the heartbeat and the work."""

    def __init__(self, ledger: Ledger, claim: Claim, pulse: Pulse, settings: ControlSettings, watchdog: Watchdog):
        self._ledger, self._claim, self._pulse, self._lease_s = ledger, claim, pulse, settings.lease_s
        self._done = threading.Event()
        self._every_s = settings.lease_s / HEARTBEATS
        self._written: dict[str, Any] | None = None
        self._is_status_read = True
        limit_s = self._every_s + settings.liveness_s + LONGEST_CALL_S
        name = f"heartbeat-{claim.token}"
        self._thread = WatchedThread(self._run, watchdog, self._done, name=name, limit_s=limit_s)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        due_at = time.monotonic() + self._every_s
        while not self._done.wait(self._pause_s(due_at)):
            self._thread.watch.beat()
            status = self._status()
            if time.monotonic() < due_at and status == self._written:
                continue
            self._renew(status)
            due_at = time.monotonic() + self._every_s

    def _status(self) -> dict[str, Any] | None:
        """The status of the work; None where it cannot be read or stored. It is only shown, so the lease goes on."""
        if self._pulse.status is None:
            return None
        try:
            status = self._pulse.status()
            json.dumps(status, allow_nan=False)  # PostgreSQL takes no NaN
        except Exception as error:  # noqa: BLE001 -- any error here would end this thread, and with it the worker
            if self._is_status_read:
                log.warning("the status of %s is not written: %s: %s", self._claim.subject, type(error).__name__, error)
            self._is_status_read = False
            return None
        self._is_status_read = True
        return status

    def _pause_s(self, due_at: float) -> float:
        left_s = max(0.0, due_at - time.monotonic())
        return left_s if self._pulse.status is None else min(left_s, STATUS_S)

    def _renew(self, status: dict[str, Any] | None) -> None:
        try:
            with self._ledger.write() as tx:
                renew(tx, self._claim, self._lease_s, self._pulse.count, self._pulse.note, status)
            self._written = status
        except ClaimLost as error:
            log.warning("%s", error)
            self._pulse.lost = True
            self._done.set()
        except TransientError as error:
            log.warning("heartbeat of %s is late: %s", self._claim.subject, error)
