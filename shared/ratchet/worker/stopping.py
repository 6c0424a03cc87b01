"""How a worker stops: the work gives way and its claim goes back; what does not give way in time is left behind."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from ratchet.systems.controller import Controller

log = logging.getLogger(__name__)

ABANDON_S = 2.0


class Stopper(threading.Thread):
    """Ends the process ``grace_s`` after it was asked to stop, or at once when asked a second time."""

    def __init__(
        self,
        controller: Controller,
        *,
        hurry: threading.Event | None = None,
        leave: Callable[[int], object] = os._exit,
    ):
        """``hurry`` is set when asked a second time; ``leave`` ends the process with an exit code."""
        super().__init__(name="stopper", daemon=True)
        self._controller = controller
        self._hurry = hurry or threading.Event()
        self._leave = leave

    def asked(self, **_signal: Any) -> None:
        """The worker is asked to stop. Called by Celery's signal handler, so it only sets flags."""
        if self._controller.stop.is_set():
            self._hurry.set()
        self._controller.stop.set()
        self._controller.setback.set()

    def run(self) -> None:
        self._controller.stop.wait()
        self._hurry.wait(self._controller.settings.control.grace_s)
        giving_back = threading.Thread(target=self._controller.holdings.abandon, daemon=True)
        giving_back.start()
        giving_back.join(ABANDON_S)
        log.warning("the work did not give way in time and is left behind")
        self._leave(0)
