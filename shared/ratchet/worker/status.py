"""``status/<system>.json``: what a worker does just now, for people and scripts. Written whole, on each change."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratchet.disk import write_if_possible
from ratchet.systems.controller import Controller
from ratchet.systems.observer import Observer
from ratchet.systems.verdict import Outcome, Subject, Verdict
from ratchet.watchdog import LONGEST_CALL_S, WatchedThread

TICK_S = 0.5


class StatusFile(WatchedThread, Observer):
    """Follows a controller, and writes what has changed at most twice a second."""

    def __init__(self, path: Path, controller: Controller, left_s: Callable[[], float] = lambda: 0.0):
        """``left_s`` says how long a worker that was asked to stop may still live."""
        limit_s = controller.settings.control.liveness_s + LONGEST_CALL_S
        super().__init__(self._follow, controller.watchdog, controller.stop, name="status", limit_s=limit_s)
        self._path, self._controller = path, controller
        self._last: dict[str, Any] | None = None
        self._written: dict[str, Any] | None = None
        self._closed = threading.Event()
        self._left_s = left_s

    def decided(self, lane: str, subject: Subject, outcome: Outcome, took_s: float) -> None:  # noqa: ARG002
        """Remember it as the last one."""
        self._last = {
            "lane": lane,
            "subject_kind": subject.kind,
            "subject_id": subject.id,
            "outcome": outcome.outcome if isinstance(outcome, Verdict) else "not ready",
            "at": time.time(),
        }

    def _follow(self) -> None:
        while not self._controller.stop.wait(TICK_S):
            self.watch.beat()
            self.write(self._state())
        while not self._closed.wait(TICK_S):
            self.write("stopping", within_s=round(self._left_s(), 1))

    def close(self) -> None:
        """Write that the worker has stopped; the last that is written."""
        self._closed.set()
        if self.is_alive():
            self.join(TICK_S)
        self.write("stopped")

    def write(self, state: str, within_s: float | None = None) -> None:
        """Write the file if anything in it has changed. One that stops says within how many seconds, at most."""
        pulses = dict(self._controller.running)
        content = {
            "system": self._controller.system.name,
            "worker": self._controller.worker,
            "pid": os.getpid(),
            "state": state,
            "stops_within_s": within_s,
            "lanes": {
                lane.name: {"subject": pulse.about, "note": pulse.note, "progress": pulse.count} if pulse else None
                for lane in self._controller.system.lanes
                for pulse in [pulses.get(lane.name)]
            },
            "last": self._last,
        }
        if content != self._written:
            self._replace({**content, "at": time.time()})
            self._written = content

    def _state(self) -> str:
        pulses = list(self._controller.running.values())
        if any(pulse.about for pulse in pulses):
            return "working"
        return "waiting" if any(pulse.note for pulse in pulses) else "idle"

    def _replace(self, content: dict[str, Any]) -> None:
        write_if_possible(self._path, json.dumps(content, indent=2) + "\n")
