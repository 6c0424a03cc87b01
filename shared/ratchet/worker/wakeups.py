"""Wakes the lanes of a worker: the listener on events from Redis, and the sweep at intervals, even without Redis.

An event wakes the lanes that consume it directly, in this process. The sweep wakes all lanes at fixed intervals, if
possible by an ordinary Celery task, so that Flower shows it. It does not know what the lanes do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import select

from ratchet.bus.streams import Relay, StreamEntry, Streams
from ratchet.errors import EventError, PreconditionFailed, TransientError
from ratchet.events import decode
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeadLetterRow
from ratchet.systems import claims
from ratchet.watchdog import LONGEST_CALL_S, WatchedThread
from ratchet.worker.lanes import Lanes

log = logging.getLogger(__name__)

PAUSE_S = 1.0


class Listener(WatchedThread):
    """Reads only events that free lanes consume, at most one per free lane, and leaves the others to other workers."""

    def __init__(self, streams: Streams, ledger: Ledger, lanes: Lanes):
        controller = lanes.controller
        limit_s = controller.settings.control.liveness_s + LONGEST_CALL_S
        super().__init__(self._listen, controller.watchdog, controller.stop, name="listener", limit_s=limit_s)
        self._streams, self._ledger, self._lanes = streams, ledger, lanes
        self._system, self._worker = controller.system, controller.worker
        self._opened = self._is_away = False

    def _listen(self) -> None:
        while not self._stop_asked.is_set():
            self.watch.beat()
            free = self._lanes.wait_free(PAUSE_S)
            names = self._consumed_by(free)
            if not names:
                if free:
                    self._stop_asked.wait(PAUSE_S)
                continue
            try:
                self._open()
                for entry in self._streams.read(self._system.name, self._worker, names, count=len(free)):
                    self.deliver(entry)
                self._is_away = False
            except TransientError as error:
                if not self._is_away:
                    log.info("no events for now: %s", error)
                self._opened, self._is_away = False, True
                self._stop_asked.wait(PAUSE_S)

    def deliver(self, entry: StreamEntry) -> None:
        """Wake the lanes that consume the event. An event that cannot be decoded becomes a dead letter, once."""
        try:
            event = decode(entry.body)
        except EventError as error:
            self._dead_letter(entry, error)
            return
        for observer in self._lanes.controller.observers:
            observer.received(event)
        for lane in self._system.lanes_consuming(type(event)):
            self._lanes.wake(lane.name, event.id)

    def _open(self) -> None:
        if not self._opened:
            self._streams.open(self._system.name, [event.name for event in self._system.consumes])
            self._opened = True

    def _consumed_by(self, lanes: list[str]) -> list[str]:
        return list(dict.fromkeys(event.name for lane in lanes for event in self._system.lane(lane).consumes))

    def _dead_letter(self, entry: StreamEntry, error: EventError) -> None:
        subject_id = f"{entry.name}/{entry.id}"
        log.error("event %s cannot be decoded: %s", subject_id, error)
        while not self._stop_asked.is_set():
            try:
                dead_letter_event(self._ledger, self._system.name, subject_id, entry, error)
                return
            except TransientError as ledger_error:
                log.warning("the dead letter of event %s cannot be written yet: %s", subject_id, ledger_error)
                self.watch.beat()
                self._stop_asked.wait(PAUSE_S)


def dead_letter_event(ledger: Ledger, system: str, subject_id: str, entry: StreamEntry, error: EventError) -> None:
    """Write one dead letter for an undecodable event, even if it is read several times."""
    with ledger.write() as tx:
        known = select(DeadLetterRow.id).where(
            DeadLetterRow.system == system,
            DeadLetterRow.subject_kind == "event",
            DeadLetterRow.subject_id == subject_id,
        )
        if tx.session.scalar(known.limit(1)) is not None:
            return
        letter = DeadLetterRow(
            system=system,
            subject_kind="event",
            subject_id=subject_id,
            error=str(error),
            traceback=entry.body.decode(errors="replace"),
            failures=1,
            kills=0,
            created_at=tx.now,
            resolved_at=None,
            resolution=None,
        )
        tx.session.add(letter)


class Sweep(WatchedThread):
    """Wakes all lanes at the start and every ``sweep_s``, and whenever a claim has expired or ends its pause.

    Every ``timer_s`` it relays events that a crash has left in the outbox, and calls ``seen`` and ``check_liveness``.
    The controller's ``reschedule`` wakes the thread early when a failed subject is to be tried again.
    """

    def __init__(
        self,
        ledger: Ledger,
        relay: Relay,
        lanes: Lanes,
        wake_by_task: Callable[[], None],
        seen: Callable[[], None],
        refused: Callable[[PreconditionFailed], None],
        check_liveness: Callable[[], None] = lambda: None,
    ):
        """``wake_by_task`` raises TransientError while Redis is unavailable.

        ``refused`` is called once, when ``seen`` raises PreconditionFailed: the worker cannot go on with this ledger.
        """
        controller = lanes.controller
        control = controller.settings.control
        super().__init__(
            self._sweep,
            controller.watchdog,
            controller.stop,
            name="sweep",
            limit_s=control.timer_s + control.liveness_s + LONGEST_CALL_S,
        )
        self._ledger, self._relay, self._lanes = ledger, relay, lanes
        self._wake_by_task, self._seen, self._check_liveness = wake_by_task, seen, check_liveness
        self._refused: Callable[[PreconditionFailed], None] | None = refused
        self._system, self._settings, self._reschedule = controller.system, control, controller.reschedule

    def _sweep(self) -> None:
        every_s = self._system.sweep_s * self._settings.sweep_factor
        sweep_at = timer_at = time.monotonic()
        while not self._stop_asked.is_set():
            self.watch.beat()
            now = time.monotonic()
            if now >= sweep_at:
                self._wake_all()
                sweep_at = now + every_s
            if now >= timer_at:
                self._run_timer()
                timer_at = now + self._settings.timer_s
            due_s = self._check_claims()
            self._reschedule.wait(max(0.01, min(sweep_at, timer_at, now + due_s) - time.monotonic()))
            self._reschedule.clear()

    def _wake_all(self) -> None:
        try:
            self._wake_by_task()
        except TransientError as error:
            log.info("the sweep runs without Celery: %s", error)
            self._lanes.wake_all()

    def _run_timer(self) -> None:
        self._check_liveness()
        for duty in (self._relay.relay_leftovers, self._seen):
            try:
                duty()
            except TransientError as error:
                log.info("put off: %s", error)
            except PreconditionFailed as error:
                refused, self._refused = self._refused, None
                if refused is not None:
                    refused(error)

    def _check_claims(self) -> float:
        """Wake all lanes if a claim is due. Returns the seconds until the next one is."""
        try:
            claims.follow_clock(self._ledger, self._system.name)
            with self._ledger.read() as session:
                due_at = claims.next_due_at(session, self._system.name)
            rest_s = self._settings.timer_s if due_at is None else due_at - self._ledger.now()
        except TransientError as error:
            log.info("put off: %s", error)
            return self._settings.timer_s
        if rest_s > 0:
            return rest_s
        self._lanes.wake_all()
        return self._settings.timer_s


def send_sweep(app: Celery, system_queue: str, worker_queue: str, expires_s: float) -> None:
    """Wake all lanes of this worker by a task. Raises TransientError while Redis is unavailable."""
    try:
        app.send_task(system_queue, queue=worker_queue, expires=expires_s, retry=False)
    except OperationalError as error:
        raise TransientError(f"Redis is away: {error}") from error
