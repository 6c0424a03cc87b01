"""The one shape of every system: find what lacks my verdict, and give it.

Waking by an event, by the sweep and by hand all end in ``Controller.look``. What happens twice acts once, because a
verdict, its effects and its events commit together under a unique key and a live claim.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from dataclasses import dataclass, field

from ratchet.artifacts import ArtifactStore
from ratchet.errors import ChildFailed, ClaimLost, Refused, Stopping, SurroundingsError
from ratchet.failpoint import failpoint
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_not_newer
from ratchet.ledger.tables import Verdict as VerdictRow
from ratchet.ledger.undecided import settled
from ratchet.settings import Settings
from ratchet.systems import claims, poison
from ratchet.systems.claims import Claim
from ratchet.systems.heartbeat import Heartbeat
from ratchet.systems.holdings import Holdings
from ratchet.systems.observer import Observer
from ratchet.systems.system import Lane, System
from ratchet.systems.trail import trail
from ratchet.systems.verdict import NotReady, Outcome, Subject, Verdict
from ratchet.systems.work import Children, Pulse, Work

log = logging.getLogger(__name__)


@dataclass
class Controller:
    """Turns one system in one worker. ``worker`` is its locked name, ``stop`` its request to stop.

    ``running`` maps a lane's name to the pulse of its present work, for the liveness check. ``setback`` is set
    when a subject is to be tried again after a rest. ``observers`` are told of everything and change nothing.
    """

    system: System
    settings: Settings
    ledger: Ledger
    artifacts: ArtifactStore
    children: Children
    worker: str
    stop: threading.Event = field(default_factory=threading.Event)
    running: dict[str, Pulse] = field(default_factory=dict)
    setback: threading.Event = field(default_factory=threading.Event)
    observers: list[Observer] = field(default_factory=list)
    holdings: Holdings = field(init=False)

    def __post_init__(self) -> None:
        self.holdings = Holdings(self.ledger)

    def look(self, lane_name: str, cause: str | None = None) -> int:
        """Decide everything in the lane that can be decided now. Returns the number of verdicts given.

        Trouble of the surroundings is waited out here, with back-off, until it passes or the worker stops.
        """
        for observer in self.observers:
            observer.started(lane_name, cause)
        try:
            return self._look(self.system.lane(lane_name), cause)
        finally:
            self.running.pop(lane_name, None)

    def _look(self, lane: Lane, cause: str | None) -> int:
        given, skipped, patience_s = 0, set[Subject](), self.settings.control.backoff_first_s
        while not self.stop.is_set():
            self.running[lane.name] = Pulse()
            try:
                self.holdings.pay_back()
                claim = self._claim_next(lane, skipped)
                if claim is None:
                    return given
                outcome = self._decide(lane, claim, cause)
                patience_s = self.settings.control.backoff_first_s
            except SurroundingsError as error:
                log.warning("%s waits %.1f s: %s", self.system.name, patience_s, error)
                self._tell_of_wait(lane)
                self._wait(lane, patience_s)
                patience_s = min(patience_s * 2, self.settings.control.backoff_last_s)
                continue
            given += isinstance(outcome, Verdict)
            if not isinstance(outcome, Verdict):
                skipped.add(claim.subject)
        return given

    def _claim_next(self, lane: Lane, skipped: set[Subject]) -> Claim | None:
        with self.ledger.read() as session:
            found = [s for s in lane.find(session, self.settings) if s not in skipped]
            done = settled(session, self.system.name, [(s.kind, s.id) for s in found])
        for subject in found:
            if (subject.kind, subject.id) in done:
                continue
            with self.ledger.write() as tx:
                if settled(tx.session, self.system.name, [(subject.kind, subject.id)]):
                    continue
                claim = claims.take(tx, self.system.name, subject, self.worker, self.settings.control.lease_s)
                if claim is not None and poison.overdue(tx, claim, self.settings.control):
                    poison.bury(tx, claim, "its process died again and again", "")
                    claim = None
            if claim is not None:
                self.holdings.add(claim)
                failpoint("after-claim")
                return claim
        return None

    def _decide(self, lane: Lane, claim: Claim, cause: str | None) -> Outcome | None:
        work = self._work(lane, claim, cause)
        for observer in self.observers:
            observer.claimed(lane.name, claim.subject)
        self.running[lane.name] = work.pulse
        started = time.monotonic()
        try:
            with trail(event=cause, subject=str(claim.subject), claim=claim.token):
                with Heartbeat(self.ledger, claim, work.pulse, self.settings.control):
                    outcome = lane.do(work)
                failpoint("after-work")
                self._commit(claim, outcome, cause, time.monotonic() - started)
                failpoint("after-commit")
                if isinstance(outcome, Verdict):
                    log.info("%s: %s (%s)", claim.subject, outcome.outcome, outcome.reason)
        except (Stopping, SurroundingsError):
            self.holdings.give_back(claim)
            raise
        except ClaimLost as error:
            log.warning("%s", error)
            self.holdings.settle(claim)
            return None
        except Exception as error:  # noqa: BLE001 -- the named recovery is the poison count of the subject
            self._count(lane, claim, error)
            return None
        finally:
            shutil.rmtree(work.folder, ignore_errors=True)
        self.holdings.settle(claim)
        for observer in self.observers:
            observer.decided(lane.name, claim.subject, outcome, time.monotonic() - started)
        return outcome

    def _work(self, lane: Lane, claim: Claim, cause: str | None) -> Work:
        folder = self.settings.work_folder / self.worker / str(claim.token)
        folder.mkdir(parents=True, exist_ok=True)
        return Work(
            subject=claim.subject,
            claim=claim,
            cause=cause,
            settings=self.settings,
            ledger=self.ledger,
            artifacts=self.artifacts,
            children=self.children,
            folder=folder,
            log_path=self.settings.log_folder / f"{self.system.name}.child.log",
            stop=self.stop,
            step_s=lane.step_s,
            pulse=Pulse(about=str(claim.subject)),
        )

    def _commit(self, claim: Claim, outcome: Outcome, cause: str | None, took_s: float) -> None:
        with self.ledger.write() as tx:
            tx.cause = cause
            if isinstance(outcome, NotReady):
                claims.release(tx, claim)
            else:
                claims.finish(tx, claim)
                tx.session.add(self._row(claim, outcome, cause, took_s, tx.now))
            outcome.effects(tx)
            for event in outcome.events:
                tx.emit(event)

    def _row(self, claim: Claim, verdict: Verdict, cause: str | None, took_s: float, now: float) -> VerdictRow:
        return VerdictRow(
            system=self.system.name,
            subject_kind=claim.subject.kind,
            subject_id=claim.subject.id,
            outcome=verdict.outcome,
            reason=verdict.reason,
            numbers=dict(verdict.numbers),
            cause=cause,
            worker=self.worker,
            created_at=now,
            took_s=took_s,
        )

    def _count(self, lane: Lane, claim: Claim, error: Exception) -> None:
        killed = isinstance(error, ChildFailed) and error.killed
        log.error("%s failed on %s", self.system.name, claim.subject, exc_info=error)
        self._require_own_schema(claim, error)
        for observer in self.observers:
            observer.failed(lane.name, claim.subject, killed)
        try:
            with self.ledger.write() as tx:
                poison.count(tx, claim, error, killed, self.settings.control)
        except SurroundingsError:
            self.holdings.give_back(claim)
            raise
        except ClaimLost as lost:
            log.warning("%s", lost)
        self.holdings.settle(claim)
        self.setback.set()

    def _require_own_schema(self, claim: Claim, error: Exception) -> None:
        """What fails on a ledger that a newer version has migrated meanwhile is no fault of the subject."""
        try:
            require_not_newer(self.ledger)
        except (SurroundingsError, Refused) as reason:
            self.holdings.give_back(claim)
            raise SurroundingsError(str(reason)) from error

    def _tell_of_wait(self, lane: Lane) -> None:
        for observer in self.observers:
            observer.waited(lane.name)

    def _wait(self, lane: Lane, seconds: float) -> None:
        """Sit out trouble of the surroundings; waiting is a sign of life."""
        pulse = self.running[lane.name] = Pulse()
        deadline = time.monotonic() + seconds
        while not self.stop.is_set() and time.monotonic() < deadline:
            pulse.beat("waiting for the surroundings")
            self.stop.wait(min(1.0, max(0.0, deadline - time.monotonic())))
