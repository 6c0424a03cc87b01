"""Watches a process's essential threads, and reports one that has ended unexpectedly or stalled.

It does not know what they do. Silence is counted between checks, so that time in which the process was suspended or the
machine slept does not count.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NoReturn

log = logging.getLogger(__name__)

EXIT_STALLED = 70
"""EX_SOFTWARE. The supervisor of the process starts it again."""

TICK_S = 1.0
LONGEST_CALL_S = 120.0
"""The longest time before a call to Redis or the ledger gives up, and so the limit of a loop with one call per round.

A write to PostgreSQL may take longest: 30 s to find a link dead, 10 s to connect again, 30 s for the writer's lock,
and 30 s where the link is cut once more (ratchet.ledger.ledger.LINK).
"""

LAST_WORDS_S = 2.0
"""The process exits after this time even if a stalled thread holds the lock of the log."""


class Watch:
    """The signs of life of one long-lived loop. Without ``limit_s`` only its end is a problem."""

    def __init__(self, name: str, limit_s: float | None = None):
        self.name = name
        self.limit_s = limit_s
        self.beats = 0
        self.is_resting = False
        self.has_ended = False

    def beat(self) -> None:
        """A sign of life. It costs nothing, so that a loop may call it in every round."""
        self.beats += 1
        self.is_resting = False

    def rest(self) -> None:
        """The loop waits for work: silence does not count until the next beat."""
        self.is_resting = True


class _Silence:
    """How long a watch has been silent, counted between the checks of one watchdog."""

    def __init__(self, watch: Watch):
        self.watch, self.beats, self.seconds = watch, watch.beats, 0.0

    def count(self, elapsed_s: float) -> None:
        if self.watch.is_resting or self.watch.beats != self.beats:
            self.beats, self.seconds = self.watch.beats, 0.0
        else:
            self.seconds += elapsed_s

    @property
    def problem(self) -> str | None:
        if self.watch.has_ended:
            return f"{self.watch.name} has ended unexpectedly"
        if self.watch.limit_s is not None and self.seconds > self.watch.limit_s:
            return f"{self.watch.name} has stood still for more than {self.watch.limit_s:g} s"
        return None


class Watchdog:
    """Checks watches when ``check`` is called, which must be at least every ``tick_s``. Thread-safe."""

    def __init__(self, tick_s: float = TICK_S, clock: Callable[[], float] = time.monotonic):
        self._tick_s, self._clock = tick_s, clock
        self._lock = threading.Lock()
        self._silences: dict[Watch, _Silence] = {}
        self._checked_at = clock()

    def add(self, watch: Watch) -> None:
        with self._lock:
            self._silences[watch] = _Silence(watch)

    def remove(self, watch: Watch) -> None:
        with self._lock:
            self._silences.pop(watch, None)

    def check(self) -> str | None:
        """Count the silence since the last check, and return ``problem``."""
        now = self._clock()
        with self._lock:
            elapsed_s, self._checked_at = min(now - self._checked_at, 2 * self._tick_s), now
            for silence in self._silences.values():
                silence.count(elapsed_s)
        return self.problem

    @property
    def problem(self) -> str | None:
        """The first problem: a thread that ended unexpectedly or was stalled at the last check."""
        with self._lock:
            found = [silence.problem for silence in self._silences.values()]
        return next((problem for problem in found if problem is not None), None)


class WatchedThread(threading.Thread):
    """A daemon thread that must run until ``stop`` is set. An earlier end is logged and is a problem.

    ``work`` calls ``self.watch.beat`` at least every ``limit_s``.
    """

    def __init__(
        self,
        work: Callable[[], None],
        watchdog: Watchdog,
        stop: threading.Event,
        *,
        name: str,
        limit_s: float | None = None,
    ):
        super().__init__(name=name, daemon=True)
        self.watch = Watch(f"thread {name}", limit_s)
        self._work, self._watchdog, self._stop_asked = work, watchdog, stop

    def start(self) -> None:
        self._watchdog.add(self.watch)
        super().start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException:
            log.exception("thread %s failed", self.name)
        finally:
            if self._stop_asked.is_set():
                self._watchdog.remove(self.watch)
            else:
                self.watch.has_ended = True


def end_process(problem: str) -> NoReturn:
    """Write the stack of every thread to stderr, log the problem, and exit at once."""
    _exit_soon(EXIT_STALLED)
    faulthandler.dump_traceback(all_threads=True)
    log.critical("this process exits, to be restarted: %s", problem)
    os._exit(EXIT_STALLED)


def leave_process(why: str) -> NoReturn:
    """Exit with code 0 at once: the process was asked to stop and takes too long."""
    _exit_soon(0)
    log.error("this process exits without waiting any longer: %s", why)
    os._exit(0)


def _exit_soon(code: int) -> None:
    with contextlib.suppress(RuntimeError):  # no thread can be started, so nothing guards against a log that blocks
        threading.Timer(LAST_WORDS_S, os._exit, (code,)).start()
