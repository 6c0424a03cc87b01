"""Liveness of a worker: its canary comes back through Celery, its work makes progress, and its threads run.

The canary is a task in the worker's own queue; its return proves that Redis and Celery deliver tasks. A worker that
fails the check exits, and its supervisor restarts it.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError

from ratchet.errors import TransientError
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.systems.claims import Pulse
from ratchet.systems.controller import Controller
from ratchet.watchdog import LONGEST_CALL_S, Watchdog, WatchedThread, end_process

log = logging.getLogger(__name__)

CANARY = "ratchet.canary"

RECONNECT_S = 30.0
"""Celery's longest pause between two tries to reach Redis."""

STEP_MARGIN = 1.2
"""A parent kills a stalled child after ``step_s``; a parent that has not done so after this multiple is itself
stalled."""


class Canary:
    """Sends canaries through Celery, and measures how long none has come back. While Redis is unavailable, none is
    expected."""

    def __init__(self, app: Celery, queue: str):
        self._app, self._queue = app, queue
        self._lock = threading.Lock()
        self._waiting_since: float | None = None
        self._is_reconnecting = True

        @app.task(name=CANARY, shared=False)  # not for other applications of this process
        def canary() -> None:
            self._is_reconnecting = False
            self.excuse()

    def send(self, expires_s: float) -> None:
        """Send one. Raises TransientError while Redis is unavailable."""
        sent_at = time.monotonic()
        try:
            self._app.send_task(CANARY, queue=self._queue, expires=expires_s, retry=False)
        except OperationalError as error:
            self._is_reconnecting = True
            self.excuse()
            raise TransientError(f"Redis is away: {error}") from error
        with self._lock:
            self._waiting_since = self._waiting_since or sent_at

    def excuse(self, by_s: float = float("inf")) -> None:
        """Do not count the silence of the last ``by_s`` seconds."""
        with self._lock:
            since = self._waiting_since
            self._waiting_since = None if since is None or since + by_s > time.monotonic() else since + by_s

    def silent_s(self) -> float:
        """How long canaries have been outstanding without any coming back."""
        with self._lock:
            return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since

    @property
    def allowed_s(self) -> float:
        """How long Celery may take to connect, at the start or after an outage of Redis, before a canary can come
        back."""
        return RECONNECT_S if self._is_reconnecting else 0.0


@dataclass
class Progress:
    """The last sign of life of one lane's work."""

    pulse: Pulse
    count: int
    at: float


class Liveness(WatchedThread):
    """Checks the worker at each tick, and touches the file ``alive``, whose age a health check reads.

    Time in which the process was suspended or the machine slept does not count as silence.
    """

    def __init__(self, settings: ControlSettings, controller: Controller, canary: Canary, alive: Path):
        # Not among the threads that it checks itself: the sweep checks this thread every timer_s.
        self._itself = Watchdog(settings.timer_s)
        limit_s = settings.liveness_s + LONGEST_CALL_S
        super().__init__(self._run_checks, self._itself, controller.stop, name="liveness", limit_s=limit_s)
        self._settings, self._controller, self._canary, self._alive = settings, controller, canary, alive
        self._progress: dict[str, Progress] = {}
        self._is_shown = True
        self._tick_s = min(1.0, settings.liveness_s / 10)

    def check(self) -> None:
        """Called by another thread: exit the process if this thread has ended or stalled."""
        if not self._stop_asked.is_set() and (problem := self._itself.check()):
            end_process(problem)

    def _run_checks(self) -> None:
        canary_s, ticked_at, sent_at = self._settings.liveness_s / 4, time.monotonic(), float("-inf")
        while not self._controller.stop.wait(self._tick_s):
            self.watch.beat()
            now = time.monotonic()
            lost_s = now - ticked_at - self._tick_s
            if lost_s > self._tick_s:
                self._excuse(lost_s)
            ticked_at = now
            if now - sent_at >= canary_s:
                self._send()
                sent_at = now
            if problem := self._silence(now) or self._controller.watchdog.check():
                end_process(problem)
            self._show()

    def _show(self) -> None:
        try:
            self._alive.touch()
        except OSError as error:
            if self._is_shown:
                log.warning("%s cannot be touched: %s", self._alive, error)
            self._is_shown = False
        else:
            self._is_shown = True

    def _send(self) -> None:
        try:
            self._canary.send(self._settings.liveness_s)
        except TransientError as error:
            log.info("no canary for now: %s", error)

    def _silence(self, now: float) -> str | None:
        return self._silent_lane(now) or self._silent_loop()

    def _silent_lane(self, now: float) -> str | None:
        controller = self._controller
        running = dict(controller.running)
        self._progress = {lane: self._noted(lane, pulse, now) for lane, pulse in running.items()}
        for lane, progress in self._progress.items():
            limit_s = max(self._settings.liveness_s, STEP_MARGIN * controller.system.lane(lane).step_s)
            if now - progress.at > limit_s:
                about = progress.pulse.about or "its search for subjects"
                return f"lane {lane} made no progress in {now - progress.at:.0f} s on {about}"
        return None

    def _silent_loop(self) -> str | None:
        limit_s = self._settings.liveness_s + self._canary.allowed_s
        silent_s = self._canary.silent_s()
        return f"no canary has come back in {silent_s:.0f} s" if silent_s > limit_s else None

    def _noted(self, lane: str, pulse: Pulse, now: float) -> Progress:
        before = self._progress.get(lane)
        if before is not None and before.pulse is pulse and before.count == pulse.count:
            return before
        return Progress(pulse, pulse.count, now)

    def _excuse(self, lost_s: float) -> None:
        self._canary.excuse(lost_s)
        for progress in self._progress.values():
            progress.at += lost_s


def alive_path(settings: Settings, worker: str) -> Path:
    """The file whose age tells whether this worker is alive."""
    return settings.control.alive_file or settings.status_folder / f"{worker}.alive"
