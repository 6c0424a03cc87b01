"""Stopping a run: the first Ctrl-C asks, the second insists."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

EXIT_INSISTED = 130


class Stop:
    """Catches SIGINT and SIGTERM for a block; ``event`` is set by the first of them. Main thread only.

    The second ends this process at once, after ``insist`` has ended what it started.
    """

    def __init__(self, say: Callable[[str], None]):
        self.event = threading.Event()
        self.insist: Callable[[], None] = lambda: None
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, _number: int, _frame: FrameType | None) -> None:
        if self.event.is_set():
            self.insist()
            os._exit(EXIT_INSISTED)
        self.event.set()
        self._say("stopping; work under way is given back or saved (Ctrl-C again ends it at once)")
