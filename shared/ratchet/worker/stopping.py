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


def stop_s(controller: Controller) -> float:
    """How long after it was asked to stop a worker may live at most."""
    pulses = list(controller.running.values())
    return max([controller.settings.control.grace_s, *(pulse.stop_s for pulse in pulses)])


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
    ):
        """``hurry`` is set when asked a second time; ``leave`` ends the process with an exit code."""
        super().__init__(name="stopper", daemon=True)
        self._controller = controller
        self._hurry = hurry or threading.Event()
        self._leave = leave
        self._clock = clock

    def asked(self, **_signal: Any) -> None:
        """The worker is asked to stop. Called by Celery's signal handler, so it only sets flags."""
        if self._controller.stop.is_set():
            self._hurry.set()
        self._controller.stop.set()
        self._controller.setback.set()

    def run(self) -> None:
        self._controller.stop.wait()
        asked_at = self._clock()
        while (left_s := asked_at + stop_s(self._controller) - self._clock()) > 0:
            if self._hurry.wait(min(left_s, LOOK_S)):
                break
        giving_back = threading.Thread(target=self._controller.holdings.abandon, daemon=True)
        giving_back.start()
        giving_back.join(ABANDON_S)
        log.warning("the work did not give way in time and is left behind")
        self._leave(0)
