"""The sweep: looks at fixed intervals and whenever a claim is due, and relays what a crash left in the outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ratchet.bus.outbox import Relay
from ratchet.errors import PreconditionFailed, TransientError
from ratchet.ledger import Ledger
from ratchet.systems import claims
from ratchet.watchdog import LONGEST_CALL_S, WatchedThread
from ratchet.worker.desk import Desk

log = logging.getLogger(__name__)

CONNECT_S = 3.0
"""How long the sweep at start waits for Celery, so that its looks are tasks like any others."""

LOST_AFTER_S = 5.0
"""A lane that the pool has not begun by then will never begin: Celery has dropped it."""


class Sweep(WatchedThread):
    """Sweeps at start and every ``sweep_s``; every ``timer_s`` relays leftovers, looks for due claims, calls ``seen``.

    A failed subject's rest may end earlier than that: the controller's setback wakes the thread to see when.
    """

    def __init__(
        self,
        ledger: Ledger,
        relay: Relay,
        desk: Desk,
        seen: Callable[[], None],
        refused: Callable[[PreconditionFailed], None],
        guard: Callable[[], None] = lambda: None,
    ):
        """``refused`` is called once, when ``seen`` raises that this worker has no business here any more.

        ``guard`` is called every ``timer_s``, to look after whoever judges whether the worker lives.
        """
        control = desk.controller.settings.control
        super().__init__(
            self._sweep,
            desk.controller.watchdog,
            desk.controller.stop,
            name="sweep",
            limit_s=control.timer_s + control.liveness_s + LONGEST_CALL_S,
        )
        self._guard = guard
        self._ledger, self._relay, self._desk, self._seen = ledger, relay, desk, seen
        self._refused: Callable[[PreconditionFailed], None] | None = refused
        controller = desk.controller
        self._system, self._settings, self._setback = controller.system, control, controller.setback

    def _sweep(self) -> None:
        self._desk.wait_attached(CONNECT_S)
        every_s = self._system.sweep_s * self._settings.sweep_factor
        sweep_at = timer_at = time.monotonic()
        while not self._stop_asked.is_set():
            self.watch.beat()
            now = time.monotonic()
            if now >= sweep_at:
                self._desk.ring_all()
                sweep_at = now + every_s
            if now >= timer_at:
                self._tidy()
                timer_at = now + self._settings.timer_s
            due_s = self._look_at_claims()
            self._setback.wait(max(0.01, min(sweep_at, timer_at, now + due_s) - time.monotonic()))
            self._setback.clear()

    def _tidy(self) -> None:
        self._guard()
        self._desk.hand_again(LOST_AFTER_S)
        for duty in (self._relay.leftovers, self._seen):
            try:
                duty()
            except TransientError as error:
                log.info("put off: %s", error)
            except PreconditionFailed as error:
                tell, self._refused = self._refused, None
                if tell is not None:
                    tell(error)

    def _look_at_claims(self) -> float:
        """Look if a claim is due; else say in how many seconds the next one will be."""
        try:
            with self._ledger.read() as session:
                due_at = claims.next_due_at(session, self._system.name)
            rest_s = self._settings.timer_s if due_at is None else due_at - self._ledger.now()
        except TransientError as error:
            log.info("put off: %s", error)
            return self._settings.timer_s
        if rest_s > 0:
            return rest_s
        self._desk.ring_all()
        return self._settings.timer_s
