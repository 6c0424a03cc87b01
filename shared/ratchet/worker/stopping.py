"""Stopping a worker, and telling other processes how long that takes.

On a stop, the work is saved and its claim released; work that does not end in time is abandoned. Meanwhile the worker's
status file says how long it still needs, so that the supervisor, `ratchet run` and `ratchet stop` wait exactly as long
as necessary and can show why.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet.systems.controller import (
        Controller,  # a large import that a reader of status files does not need
    )

log = logging.getLogger(__name__)

ABANDON_S = 2.0
CHECK_S = 1.0
"""How often the time that the work needs is read again: it may grow with each step."""
REPORT_S = 20.0
CLOSE_S = 10.0
"""Time to close Celery, the fork server and the metrics after the work has ended."""


class Stopper(threading.Thread):
    """Exits the process if its work does not end in time, or at once on a second request.

    The time is ``control.grace_s``, or ``Pulse.stop_s`` of the work if that is longer.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        hurry: threading.Event | None = None,
        leave: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[], object] = lambda: None,
    ):
        """``hurry`` is set on a second request; ``leave`` exits the process with an exit code; ``report`` is called
        every ``REPORT_S`` while the worker stops."""
        super().__init__(name="stopper", daemon=True)
        self._controller = controller
        self._hurry = hurry or threading.Event()
        self._leave = leave
        self._clock = clock
        self._report = report
        self._asked_at: float | None = None
        self._work_by = self._closed_by = 0.0

    @property
    def left_s(self) -> float:
        """The longest time until the process exits, once it was asked to stop."""
        return max(0.0, self._deadline() - self._clock())

    def asked(self, **_signal: Any) -> None:
        """Request a stop. Called by Celery's signal handler, so it only sets flags."""
        if self._controller.stop.is_set():
            self._hurry.set()
        self._controller.stop.set()
        self._controller.reschedule.set()

    def run(self) -> None:
        self._controller.stop.wait()
        reported_at = float("-inf")
        while (left_s := self.left_s) > 0:
            if self._clock() - reported_at >= REPORT_S:
                reported_at = self._clock()
                threading.Thread(target=self._report, daemon=True).start()  # it may have to wait for the ledger
            if self._hurry.wait(min(left_s, CHECK_S)):
                break
        releasing = threading.Thread(target=self._controller.held.release_all, daemon=True)
        releasing.start()
        releasing.join(ABANDON_S)
        log.warning("the work did not end in time and is abandoned")
        self._leave(0)

    def _deadline(self) -> float:
        """The deadline. It never moves to an earlier time, so that the rest can be closed after the work has ended."""
        now, pulses = self._clock(), list(self._controller.running.values())
        if self._asked_at is None:
            self._asked_at, self._closed_by = now, now + CLOSE_S
        allowed_s = max([self._controller.settings.control.grace_s, *(pulse.stop_s for pulse in pulses)])
        self._work_by = max(self._work_by, self._asked_at + allowed_s)
        if pulses:
            self._closed_by = now + CLOSE_S
            return self._work_by
        return max(self._work_by, self._closed_by)


@dataclass(frozen=True)
class StoppingWorker:
    """A worker that is stopping. ``until`` is the latest time of its end, in epoch seconds."""

    system: str
    pid: int
    note: str
    until: float

    @property
    def left_s(self) -> float:
        return max(0.0, self.until - time.time())


def stopping_workers(status_folder: Path) -> list[StoppingWorker]:
    """The workers that are stopping, by their status files. Unreadable files and expired ones are skipped."""
    found = (_read_status(path) for path in sorted(status_folder.glob("*.json")))
    return [worker for worker in found if worker is not None and worker.left_s > 0]


def stop_deadline(status_folder: Path, pids: Collection[int]) -> float:
    """When the last of the workers with these process ids has stopped (epoch seconds); 0 where none is stopping."""
    return max((worker.until for worker in stopping_workers(status_folder) if worker.pid in pids), default=0.0)


def describe_stopping(workers: Collection[StoppingWorker]) -> str:
    """``waiting for training (saves a checkpoint): up to 40 s``."""
    parts = [f"{worker.system}{f' ({worker.note})' if worker.note else ''}" for worker in workers]
    return f"waiting for {', '.join(parts)}: up to {max(worker.left_s for worker in workers):.0f} s"


def _read_status(path: Path) -> StoppingWorker | None:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["state"] != "stopping" or content["stops_within_s"] is None:
            return None
        notes = [lane["note"] for lane in content["lanes"].values() if lane is not None and lane["note"]]
        until = float(content["at"]) + float(content["stops_within_s"])
        return StoppingWorker(str(content["system"]), int(content["pid"]), ", ".join(map(str, notes)), until)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
