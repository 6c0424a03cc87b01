"""The controller of a system: it finds the subjects that lack the system's verdict, claims them, and commits decisions.

Events, sweeps and commands all end in ``Controller.run_pending``. Repeated wakes are harmless, because a verdict, its
effects and its events are committed together under a unique key and a live claim. It does not know Celery or Redis.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.artifacts import ArtifactStore
from ratchet.backoff import FIRST_S, Backoff
from ratchet.disk import disk_errors, home_errors, is_full
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
from ratchet.events import Event
from ratchet.failpoint import failpoint
from ratchet.ledger import Ledger, health
from ratchet.ledger.migrate import require_known_schema
from ratchet.ledger.pending import settled
from ratchet.ledger.tables import VerdictRow
from ratchet.logs import log_context
from ratchet.settings import Settings
from ratchet.systems import claims, dead_letters
from ratchet.systems.claims import Claim, Heartbeat, HeldClaims, Pulse, Subject
from ratchet.systems.system import Lane, System
from ratchet.systems.work import Children, NotReady, Outcome, Verdict, Work
from ratchet.watchdog import Watchdog

log = logging.getLogger(__name__)


class Observer:
    """Its methods are called at each step of a controller, in the controller's thread, so they must be quick. Override
    what you need."""

    def received(self, event: Event) -> None:
        """The listener has read an event of the system."""

    def started(self, lane: str, cause: str | None) -> None:
        """A run of the lane begins; ``cause`` is the id of the event that woke it, or None for a sweep."""

    def claimed(self, lane: str, subject: Subject) -> None:
        """The lane begins to work on a claimed subject."""

    def decided(self, lane: str, subject: Subject, outcome: Outcome, took_s: float) -> None:
        """An outcome is committed, ``took_s`` after the claim."""

    def failed(self, lane: str, subject: Subject, killed: bool) -> None:
        """The work raised an error that counts against the subject. ``killed``: its process died."""

    def waiting(self, lane: str) -> None:
        """The lane or one of its subjects waits for something external (see Controller.wait_reasons)."""

    def resumed(self, lane: str) -> None:
        """Something that the lane waited for is available again."""


@dataclass(frozen=True)
class WaitReason:
    """What a lane or subject waits for, without counting against a subject, and since when (monotonic)."""

    why: str
    since: float


@dataclass
class Controller:
    """Runs one system in one worker. ``worker`` is its locked name; ``stop`` is set to ask it to stop.

    ``running`` maps a lane's name to the pulse of its current work, for the liveness check. ``reschedule`` is set when
    a subject is to be tried again after a pause. ``observers`` are called at every step. ``wait_reasons`` says what a
    lane (key None) or one of its subjects waits for without counting against a subject.
    """

    system: System
    settings: Settings
    ledger: Ledger
    artifacts: ArtifactStore
    children: Children
    worker: str
    stop: threading.Event = field(default_factory=threading.Event)
    running: dict[str, Pulse] = field(default_factory=dict)
    reschedule: threading.Event = field(default_factory=threading.Event)
    observers: list[Observer] = field(default_factory=list)
    watchdog: Watchdog = field(default_factory=Watchdog)
    held: HeldClaims = field(init=False)
    wait_reasons: dict[tuple[str, Subject | None], WaitReason] = field(default_factory=dict)
    _missing_inputs: dict[Subject, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.held = HeldClaims(self.ledger)

    def run_pending(self, lane_name: str, cause: str | None = None) -> int:
        """Decide everything in the lane that can be decided now. Returns the number of verdicts.

        On a TransientError it tries again with back-off until the worker stops.
        """
        for observer in self.observers:
            observer.started(lane_name, cause)
        try:
            return self._run_lane(self.system.lane(lane_name), cause)
        finally:
            self.running.pop(lane_name, None)

    def _run_lane(self, lane: Lane, cause: str | None) -> int:
        control = self.settings.control
        given, skipped, backoff = 0, set[Subject](), Backoff(FIRST_S, control.max_backoff_s)
        while not self.stop.is_set():
            self.running[lane.name] = Pulse()
            try:
                self.held.retry_releases()
                claim = self._claim_next(lane, skipped)
                if claim is None:
                    self._clear_waits(lane, None)
                    return given
                outcome = self._decide(lane, claim, cause)
                backoff.reset()
            except TransientError as error:
                pause_s, unforeseen = backoff.next_s(), isinstance(error, _Unforeseen)
                log.warning("%s waits %.1f s: %s", self.system.name, pause_s, error, exc_info=unforeseen)
                self._note_wait(lane, None, str(error))
                self._wait(lane, pause_s)
                continue
            given += isinstance(outcome, Verdict)
            if not isinstance(outcome, Verdict):
                skipped.add(claim.subject)
        return given

    def _claim_next(self, lane: Lane, skipped: set[Subject]) -> Claim | None:
        found = self._find_pending(lane, skipped)
        if found and self._has_mended(lane):
            found = self._find_pending(lane, skipped)
        waiting = [subject for name, subject in list(self.wait_reasons) if name == lane.name]  # other lanes add theirs
        gone = set(waiting) - {None, *found, *skipped}
        self._clear_waits(lane, *gone)
        for subject in found:
            with self.ledger.write() as tx:
                if settled(tx.session, self.system.name, [(subject.kind, subject.id)]):
                    continue
                claim = claims.take(tx, self.system.name, subject, self.worker, self.settings.control.lease_s)
                if claim is None:
                    continue
                if subject.kind not in lane.reconciled and dead_letters.is_over_kill_limit(
                    tx, claim, self.settings.control
                ):
                    dead_letters.dead_letter(tx, claim, "its process died repeatedly", "")
                    continue
            self.held.add(claim)
            failpoint("after-claim")
            return claim
        return None

    def _find_pending(self, lane: Lane, skipped: set[Subject]) -> list[Subject]:
        """The subjects that the lane finds and the system has not decided on."""
        with self.ledger.read() as session:
            with _counted_against_none(f"{self.system.name} cannot search for subjects"):
                found = [subject for subject in lane.find(session, self.settings) if subject not in skipped]
            done = settled(session, self.system.name, [(s.kind, s.id) for s in found])
        return [subject for subject in found if (subject.kind, subject.id) not in done]

    def _has_mended(self, lane: Lane) -> bool:
        """Check what all subjects of the lane depend on; returns whether something was repaired."""
        if lane.check is None:
            return False
        with _counted_against_none(f"{self.system.name} cannot start"):
            return lane.check(self.settings, self.ledger, self.artifacts)

    def _log_outcome(self, subject: Subject, outcome: Outcome) -> None:
        """Log a verdict, and what a subject waits for once: it is tried again at every wake."""
        if isinstance(outcome, NotReady):
            if self._missing_inputs.get(subject) != outcome.waiting_for:
                self._missing_inputs[subject] = outcome.waiting_for
                log.info("%s waits for %s", subject, outcome.waiting_for)
            return
        self._missing_inputs.pop(subject, None)
        if isinstance(outcome, Verdict):
            log.info("%s: %s (%s)", subject, outcome.outcome, outcome.reason)

    def _decide(self, lane: Lane, claim: Claim, cause: str | None) -> Outcome | None:
        work = self._work(lane, claim, cause)
        for observer in self.observers:
            observer.claimed(lane.name, claim.subject)
        self.running[lane.name] = work.pulse
        started = time.monotonic()
        try:
            with home_errors(work.folder):
                work.folder.mkdir(parents=True, exist_ok=True)
            with log_context(event=cause, subject=str(claim.subject), claim=claim.token):
                with Heartbeat(self.ledger, claim, work.pulse, self.settings.control, self.watchdog):
                    outcome = lane.do(work)
                failpoint("after-work")
                self._commit(claim, outcome, cause, time.monotonic() - started)
                failpoint("after-commit")
                self._log_outcome(claim.subject, outcome)
        except (Stopping, TransientError):
            self.held.release(claim)
            raise
        except ClaimLost as error:
            log.warning("%s", error)
            self.held.drop(claim)
            return None
        except Exception as error:  # the named recovery is the count of the subject's failures
            if isinstance(error, OSError) and is_full(error):  # it fails all subjects, here as in a child process
                self.held.release(claim)
                with disk_errors(Path(str(error.filename or work.folder))):
                    raise
            self._failed(lane, claim, error)
            return None
        finally:
            shutil.rmtree(work.folder, ignore_errors=True)
        self.held.drop(claim)
        self._clear_waits(lane, None, claim.subject)
        for observer in self.observers:
            observer.decided(lane.name, claim.subject, outcome, time.monotonic() - started)
        return outcome

    def _work(self, lane: Lane, claim: Claim, cause: str | None) -> Work:
        return Work(
            subject=claim.subject,
            claim=claim,
            cause=cause,
            settings=self.settings,
            ledger=self.ledger,
            artifacts=self.artifacts,
            children=self.children,
            folder=self.settings.work_folder / self.worker / str(claim.token),
            log_path=self.settings.log_folder / f"{self.system.name}.child.log",
            stop=self.stop,
            step_s=lane.step_s,
            pulse=Pulse(about=str(claim.subject)),
        )

    def _commit(self, claim: Claim, outcome: Outcome, cause: str | None, took_s: float) -> None:
        with self.ledger.write() as tx:
            tx.cause = cause
            if not isinstance(outcome, Verdict):
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
        """Count an error against its subject, or only postpone the subject if others depend on what failed too."""
        log.error("%s failed on %s", self.system.name, claim.subject, exc_info=error)
        try:
            require_known_schema(self.ledger)
            if self._is_of_subject(lane, claim, error):
                self._count(lane, claim, error)
            else:
                self._postpone(lane, claim, error)
        except PreconditionFailed as reason:
            # A newer version may have migrated the ledger; errors from that must not count against the subject.
            self.held.release(claim)
            raise TransientError(str(reason)) from error
        except TransientError:
            self.held.release(claim)
            raise
        except ClaimLost as lost:
            log.warning("%s", lost)
        self.held.drop(claim)
        self.reschedule.set()

    def _is_of_subject(self, lane: Lane, claim: Claim, error: Exception) -> bool:
        """Whether an error counts against the subject. It does not if other subjects depend on what failed too.

        Not counted are wrong settings, artifacts that are not the subject's own, and all errors of subjects that are
        reconciled rather than decided.
        """
        if isinstance(error, SettingsError | UnknownPlugin) or claim.subject.kind in lane.reconciled:
            return False
        if isinstance(error, ArtifactError) and error.artifact is not None:
            with self.ledger.read() as session:
                return error.artifact in health.artifacts_of(session, claim.subject.kind, claim.subject.id)
        return True

    def _postpone(self, lane: Lane, claim: Claim, error: Exception) -> None:
        """Try the subject again later without counting the error, and note what it waits for. Other subjects
        continue."""
        subject = claim.subject
        with self.ledger.write() as tx:
            claims.postpone(tx, claim, self.settings.control.max_backoff_s)
            if isinstance(error, ArtifactError) and error.artifact is not None:
                consequence = f"{subject} waits until the artifact is available again."
                health.record_damage(
                    tx, error.artifact, str(error), self.system.name, subject.kind, subject.id, consequence
                )
        self._note_wait(lane, subject, f"{subject}: {type(error).__name__}: {error}")

    def _count(self, lane: Lane, claim: Claim, error: Exception) -> None:
        killed = isinstance(error, ChildFailed) and error.killed
        for observer in self.observers:
            observer.failed(lane.name, claim.subject, killed)
        with self.ledger.write() as tx:
            counted = dead_letters.record_failure(tx, claim, error, killed, self.settings.control)
        if counted is dead_letters.Counted.SHARED:
            why = f"{dead_letters.IN_A_ROW} subjects in a row have failed, and none has succeeded"
            self._note_wait(lane, claim.subject, f"{claim.subject}: {why}: {type(error).__name__}: {error}")

    def _note_wait(self, lane: Lane, subject: Subject | None, why: str) -> None:
        before = self.wait_reasons.get((lane.name, subject))
        self.wait_reasons[lane.name, subject] = WaitReason(why, before.since if before else time.monotonic())
        for observer in self.observers:
            observer.waiting(lane.name)

    def _clear_waits(self, lane: Lane, *waited_for: Subject | None) -> None:
        over = [self.wait_reasons.pop((lane.name, subject), None) for subject in waited_for]
        if any(over):
            for observer in self.observers:
                observer.resumed(lane.name)

    def _wait(self, lane: Lane, seconds: float) -> None:
        """Pause before the next try, and beat the pulse meanwhile."""
        pulse = self.running[lane.name] = Pulse()
        deadline = time.monotonic() + seconds
        while not self.stop.is_set() and time.monotonic() < deadline:
            pulse.beat("waiting to try again")
            self.stop.wait(min(1.0, max(0.0, deadline - time.monotonic())))


class _Unforeseen(TransientError):
    """An error of ``find`` or ``check`` that is not known to be transient, so its traceback is logged."""


@contextmanager
def _counted_against_none(what: str) -> Iterator[None]:
    """Turn errors before a claim, which can count against no subject, into TransientErrors."""
    try:
        yield
    except (TransientError, Stopping):
        raise
    except Exception as error:
        raise _Unforeseen(f"{what}: {type(error).__name__}: {error}") from error
