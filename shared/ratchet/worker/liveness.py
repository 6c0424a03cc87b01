"""Whether a worker lives: an idle one hears its canary, a busy one makes progress, and its threads go on.

Else it exits, to be started afresh by its supervisor.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import TransientError
from ratchet.settings import Settings
from ratchet.settings.control import ControlSettings
from ratchet.systems.work import Pulse
from ratchet.watchdog import LONGEST_CALL_S, Watchdog, WatchedThread, end_process
from ratchet.worker.canary import Canary
from ratchet.worker.desk import Desk

log = logging.getLogger(__name__)

RECONNECT_S = 30.0
"""Celery's longest pause between two tries to reach Redis."""

STEP_MARGIN = 1.2
"""A child that stalls is ended after ``step_s`` by its parent; only a parent that does not do that is dead."""


@dataclass
class Progress:
    """The last sign of life of one lane's work."""

    pulse: Pulse
    count: int
    at: float


class Liveness(WatchedThread):
    """Judges the worker once a tick and touches ``alive``, whose age a health check looks at.

    When the process was stopped or the machine slept, the time lost is nobody's silence.
    """

    def __init__(self, settings: ControlSettings, desk: Desk, canary: Canary, alive: Path):
        # Not among those that it judges by itself: the sweep looks after it, every timer_s.
        self._itself = Watchdog(settings.timer_s)
        limit_s = settings.liveness_s + LONGEST_CALL_S
        super().__init__(self._judge, self._itself, desk.controller.stop, name="liveness", limit_s=limit_s)
        self._settings, self._desk, self._canary, self._alive = settings, desk, canary, alive
        self._progress: dict[str, Progress] = {}
        self._was_attached = False
        self._is_shown = True
        self._tick_s = min(1.0, settings.liveness_s / 10)

    def check(self) -> None:
        """Called by another thread: is there still somebody who judges?"""
        if not self._stop_asked.is_set() and (problem := self._itself.look()):
            end_process(problem)

    def _judge(self) -> None:
        canary_s, ticked_at, sent_at = self._settings.liveness_s / 4, time.monotonic(), float("-inf")
        while not self._desk.controller.stop.wait(self._tick_s):
            self.watch.beat()
            now = time.monotonic()
            lost_s = now - ticked_at - self._tick_s
            if lost_s > self._tick_s:
                self._forgive(lost_s)
            ticked_at = now
            if now - sent_at >= canary_s and not self._desk.all_looking:
                self._send()
                sent_at = now
            if problem := self._silence(now) or self._desk.controller.watchdog.look():
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
        controller = self._desk.controller
        running = dict(controller.running)
        self._progress = {lane: self._noted(lane, pulse, now) for lane, pulse in running.items()}
        for lane, progress in self._progress.items():
            limit_s = max(self._settings.liveness_s, STEP_MARGIN * controller.system.lane(lane).step_s)
            if now - progress.at > limit_s:
                about = progress.pulse.about or "its search for subjects"
                return f"lane {lane} made no progress in {now - progress.at:.0f} s on {about}"
        return None

    def _silent_loop(self) -> str | None:
        attached, was_attached = self._desk.attached, self._was_attached
        self._was_attached = attached
        if self._desk.all_looking or (attached and not was_attached):
            self._canary.excuse()
        limit_s = self._settings.liveness_s + (0.0 if attached else RECONNECT_S)
        silent_s = self._canary.silent_s()
        return f"no canary has come back in {silent_s:.0f} s" if silent_s > limit_s else None

    def _noted(self, lane: str, pulse: Pulse, now: float) -> Progress:
        before = self._progress.get(lane)
        if before is not None and before.pulse is pulse and before.count == pulse.count:
            return before
        return Progress(pulse, pulse.count, now)

    def _forgive(self, lost_s: float) -> None:
        self._canary.excuse(lost_s)
        for progress in self._progress.values():
            progress.at += lost_s


def alive_path(settings: Settings, worker: str) -> Path:
    """The file whose age tells whether this worker lives."""
    return settings.control.alive_file or settings.status_folder / f"{worker}.alive"
