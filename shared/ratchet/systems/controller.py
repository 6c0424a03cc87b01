"""The one shape of every system: find what lacks my verdict, and give it.

Waking by an event, by the sweep and by hand all end in ``Controller.look``. What happens twice acts once, because a
verdict, its effects and its events commit together under a unique key and a live claim.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ratchet.artifacts import ArtifactStore
from ratchet.backoff import Backoff
from ratchet.errors import (
    ArtifactError,
    ChildFailed,
    ClaimLost,
    PreconditionFailed,
    SettingsError,
    Stopping,
    TransientError,
    UnknownPlugin,
)
from ratchet.failpoint import failpoint
from ratchet.ledger import Ledger, health
from ratchet.ledger.migrate import require_known_schema
from ratchet.ledger.pending import settled
from ratchet.ledger.tables import VerdictRow
from ratchet.settings import Settings
from ratchet.systems import claims, poison
from ratchet.systems.claims import Claim
from ratchet.systems.heartbeat import Heartbeat
from ratchet.systems.holdings import HeldClaims
from ratchet.systems.observer import Observer
from ratchet.systems.system import Lane, System
from ratchet.systems.trail import trail
from ratchet.systems.verdict import NotReady, Outcome, Subject, Verdict
from ratchet.systems.work import Children, Pulse, Work
from ratchet.watchdog import Watchdog

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trouble:
    """Why something waits although it is no fault of its own, and since when (monotonic)."""

    why: str
    since: float


@dataclass
class Controller:
    """Turns one system in one worker. ``worker`` is its locked name, ``stop`` its request to stop.

    ``running`` maps a lane's name to the pulse of its present work, for the liveness check. ``setback`` is set
    when a subject is to be tried again after a rest. ``observers`` are told of everything and change nothing.
    ``troubles`` says what keeps a lane (with None) or one of its subjects waiting although it is no fault of theirs.
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
    watchdog: Watchdog = field(default_factory=Watchdog)
    holdings: HeldClaims = field(init=False)
    troubles: dict[tuple[str, Subject | None], Trouble] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.holdings = HeldClaims(self.ledger)

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
        control = self.settings.control
        given, skipped, backoff = 0, set[Subject](), Backoff(control.backoff_first_s, control.backoff_last_s)
        while not self.stop.is_set():
            self.running[lane.name] = Pulse()
            try:
                self.holdings.release_due()
                claim = self._claim_next(lane, skipped)
                if claim is None:
                    self._recover(lane, None)
                    return given
                outcome = self._decide(lane, claim, cause)
                backoff.reset()
            except TransientError as error:
                pause_s, unforeseen = backoff.next_s(), isinstance(error, _Unforeseen)
                log.warning("%s waits %.1f s: %s", self.system.name, pause_s, error, exc_info=unforeseen)
                self._tell_of_trouble(lane, None, str(error))
                self._wait(lane, pause_s)
                continue
            given += isinstance(outcome, Verdict)
            if not isinstance(outcome, Verdict):
                skipped.add(claim.subject)
        return given

    def _claim_next(self, lane: Lane, skipped: set[Subject]) -> Claim | None:
        found = self._undecided(lane, skipped)
        if found and self._has_mended(lane):
            found = self._undecided(lane, skipped)
        gone = [key for key in self.troubles if key[0] == lane.name and key[1] not in {None, *found, *skipped}]
        self._recover(lane, *(subject for _, subject in gone))
        for subject in found:
            with self.ledger.write() as tx:
                if settled(tx.session, self.system.name, [(subject.kind, subject.id)]):
                    continue
                claim = claims.take(tx, self.system.name, subject, self.worker, self.settings.control.lease_s)
                if claim is None:
                    continue
                if subject.kind not in lane.kept_up and poison.overdue(tx, claim, self.settings.control):
                    poison.bury(tx, claim, "its process died again and again", "")
                    continue
            self.holdings.add(claim)
            failpoint("after-claim")
            return claim
        return None

    def _undecided(self, lane: Lane, skipped: set[Subject]) -> list[Subject]:
        """What the lane finds and nobody has decided on."""
        with self.ledger.read() as session:
            with _nobodys_fault(f"{self.system.name} cannot look for subjects"):
                found = [subject for subject in lane.find(session, self.settings) if subject not in skipped]
            done = settled(session, self.system.name, [(s.kind, s.id) for s in found])
        return [subject for subject in found if (subject.kind, subject.id) not in done]

    def _has_mended(self, lane: Lane) -> bool:
        """Check what all subjects of the lane depend on; whether something of it was mended."""
        if lane.check is None:
            return False
        with _nobodys_fault(f"{self.system.name} cannot begin"):
            return lane.check(self.settings, self.ledger, self.artifacts)

    def _decide(self, lane: Lane, claim: Claim, cause: str | None) -> Outcome | None:
        work = self._work(lane, claim, cause)
        for observer in self.observers:
            observer.claimed(lane.name, claim.subject)
        self.running[lane.name] = work.pulse
        started = time.monotonic()
        try:
            with trail(event=cause, subject=str(claim.subject), claim=claim.token):
                with Heartbeat(self.ledger, claim, work.pulse, self.settings.control, self.watchdog):
                    outcome = lane.do(work)
                failpoint("after-work")
                self._commit(claim, outcome, cause, time.monotonic() - started)
                failpoint("after-commit")
                if isinstance(outcome, Verdict):
                    log.info("%s: %s (%s)", claim.subject, outcome.outcome, outcome.reason)
        except (Stopping, TransientError):
            self.holdings.give_back(claim)
            raise
        except ClaimLost as error:
            log.warning("%s", error)
            self.holdings.settle(claim)
            return None
        except Exception as error:  # noqa: BLE001 -- the named recovery is the poison count of the subject
            self._failed(lane, claim, error)
            return None
        finally:
            shutil.rmtree(work.folder, ignore_errors=True)
        self.holdings.settle(claim)
        self._recover(lane, None, claim.subject)
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
                health.resolve_damage(tx, self.system.name, claim.subject.kind, claim.subject.id)
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

    def _failed(self, lane: Lane, claim: Claim, error: Exception) -> None:
        """Count an error against its subject, or put the subject off where it is of something that others need too."""
        log.error("%s failed on %s", self.system.name, claim.subject, exc_info=error)
        try:
            require_known_schema(self.ledger)
            if self._is_of_subject(lane, claim, error):
                self._count(lane, claim, error)
            else:
                self._put_off(lane, claim, error)
        except (
            PreconditionFailed
        ) as reason:  # what fails on a ledger that a newer version has migrated is no fault of the subject
            self.holdings.give_back(claim)
            raise TransientError(str(reason)) from error
        except TransientError:
            self.holdings.give_back(claim)
            raise
        except ClaimLost as lost:
            log.warning("%s", lost)
        self.holdings.settle(claim)
        self.setback.set()

    def _is_of_subject(self, lane: Lane, claim: Claim, error: Exception) -> bool:
        """Whether an error counts against the subject: not where it is of something that others depend on as well.

        That is a wrong setting, an artifact that is not the subject's own, and all that befalls a subject which stands
        for a state to be kept up rather than for a decision.
        """
        if isinstance(error, SettingsError | UnknownPlugin) or claim.subject.kind in lane.kept_up:
            return False
        if isinstance(error, ArtifactError) and error.artifact is not None:
            with self.ledger.read() as session:
                return error.artifact in health.artifacts_of(session, claim.subject.kind, claim.subject.id)
        return True

    def _put_off(self, lane: Lane, claim: Claim, error: Exception) -> None:
        """Let the subject rest, uncounted, and say what it waits for; the others of the lane go on."""
        subject = claim.subject
        with self.ledger.write() as tx:
            claims.put_off(tx, claim, self.settings.control.backoff_last_s)
            if isinstance(error, ArtifactError) and error.artifact is not None:
                consequence = f"{subject} waits until it is there again."
                health.record_damage(
                    tx, error.artifact, str(error), self.system.name, subject.kind, subject.id, consequence
                )
        self._tell_of_trouble(lane, subject, f"{subject}: {type(error).__name__}: {error}")

    def _count(self, lane: Lane, claim: Claim, error: Exception) -> None:
        killed = isinstance(error, ChildFailed) and error.killed
        for observer in self.observers:
            observer.failed(lane.name, claim.subject, killed)
        with self.ledger.write() as tx:
            counted = poison.count(tx, claim, error, killed, self.settings.control)
        if counted is poison.Counted.SHARED:
            why = f"{poison.IN_A_ROW} subjects have failed one after the other, and none has succeeded"
            self._tell_of_trouble(lane, claim.subject, f"{claim.subject}: {why}: {type(error).__name__}: {error}")

    def _tell_of_trouble(self, lane: Lane, subject: Subject | None, why: str) -> None:
        before = self.troubles.get((lane.name, subject))
        self.troubles[lane.name, subject] = Trouble(why, before.since if before else time.monotonic())
        for observer in self.observers:
            observer.waited(lane.name)

    def _recover(self, lane: Lane, *waited_for: Subject | None) -> None:
        over = [self.troubles.pop((lane.name, subject), None) for subject in waited_for]
        if any(over):
            for observer in self.observers:
                observer.recovered(lane.name)

    def _wait(self, lane: Lane, seconds: float) -> None:
        """Sit out trouble of the surroundings; waiting is a sign of life."""
        pulse = self.running[lane.name] = Pulse()
        deadline = time.monotonic() + seconds
        while not self.stop.is_set() and time.monotonic() < deadline:
            pulse.beat("waiting for the surroundings")
            self.stop.wait(min(1.0, max(0.0, deadline - time.monotonic())))


class _Unforeseen(TransientError):
    """An error of ``find`` or ``check`` that is no trouble of the surroundings: its traceback belongs into the log."""


@contextmanager
def _nobodys_fault(what: str) -> Iterator[None]:
    """Whatever is raised before a subject is claimed can count against none: it is waited out, and told."""
    try:
        yield
    except (TransientError, Stopping):
        raise
    except Exception as error:
        raise _Unforeseen(f"{what}: {type(error).__name__}: {error}") from error
