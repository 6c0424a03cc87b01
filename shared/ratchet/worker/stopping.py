"""How a worker stops: the work gives way and its claim goes back; what does not give way in time is left behind."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from ratchet.systems.controller import Controller

log = logging.getLogger(__name__)

ABANDON_S = 2.0
LOOK_S = 1.0
"""How often the work is asked anew how long it takes: a step that has ended may have been longer than those before."""
TELL_S = 20.0
CLOSE_S = 10.0
"""Once the work has given way, Celery, the fork server and the metrics are closed."""


class Stopper(threading.Thread):
    """Ends the process when its work has not given way in time, or at once when asked a second time.

    The time is ``control.grace_s``, or what the work itself says that it takes (Pulse.stop_s), if that is longer.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        hurry: threading.Event | None = None,
        leave: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[], object] = lambda: None,
    ):
        """``hurry`` is set when asked a second time; ``leave`` ends the process with an exit code; ``tell`` is called
        every ``TELL_S`` while the worker stops."""
        super().__init__(name="stopper", daemon=True)
        self._controller = controller
        self._hurry = hurry or threading.Event()
        self._leave = leave
        self._clock = clock
        self._tell = tell
        self._asked_at: float | None = None
        self._work_by = self._closed_by = 0.0

    @property
    def left_s(self) -> float:
        """How long the process may still live at most, once it was asked to stop."""
        return max(0.0, self._deadline() - self._clock())

    def asked(self, **_signal: Any) -> None:
        """The worker is asked to stop. Called by Celery's signal handler, so it only sets flags."""
        if self._controller.stop.is_set():
            self._hurry.set()
        self._controller.stop.set()
        self._controller.setback.set()

    def run(self) -> None:
        self._controller.stop.wait()
        told_at = float("-inf")
        while (left_s := self.left_s) > 0:
            if self._clock() - told_at >= TELL_S:
                told_at = self._clock()
                threading.Thread(target=self._tell, daemon=True).start()  # the ledger may keep it waiting
            if self._hurry.wait(min(left_s, LOOK_S)):
                break
        giving_back = threading.Thread(target=self._controller.holdings.abandon, daemon=True)
        giving_back.start()
        giving_back.join(ABANDON_S)
        log.warning("the work did not give way in time and is left behind")
        self._leave(0)

    def _deadline(self) -> float:
        """Never earlier than it was before: work that has given way has earned the time in which the rest is closed."""
        now, pulses = self._clock(), list(self._controller.running.values())
        if self._asked_at is None:
            self._asked_at, self._closed_by = now, now + CLOSE_S
        allowed_s = max([self._controller.settings.control.grace_s, *(pulse.stop_s for pulse in pulses)])
        self._work_by = max(self._work_by, self._asked_at + allowed_s)
        if pulses:
            self._closed_by = now + CLOSE_S
            return self._work_by
        return max(self._work_by, self._closed_by)
