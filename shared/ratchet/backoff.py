"""Exponential back-off: how long to pause before the next try. It does not know what is tried.

tenacity and backoff wrap a whole call. Most of our loops pause between calls that they make themselves and must wake at
once when a worker is asked to stop, so only the pause is shared.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


FIRST_S = 0.5
"""The usual first pause; `control.max_backoff_s` is the longest."""


def pause_s(failures: int, first_s: float, last_s: float) -> float:
    """The pause after 1 or more failures in a row: ``first_s``, doubled with each further one up to ``last_s``."""
    # Capped before it is raised: 2.0 ** 1024 overflows, and a subject may have failed more often than that.
    return min(last_s, first_s * 2.0 ** min(failures - 1, 64))


class Backoff:
    """Pauses that begin with ``first_s`` and double up to ``last_s``. Not thread-safe.

    ``jitter`` is the share of each pause that is drawn at random, so that clients of one server do not return together:
    with 0.5 a pause has between half and all of its length.
    """

    def __init__(self, first_s: float, last_s: float, *, jitter: float = 0.0):
        self._first_s, self._last_s, self._jitter = first_s, last_s, jitter
        self.failures = 0

    def reset(self) -> None:
        """Start again with the first pause. Call it after a success."""
        self.failures = 0

    def next_s(self) -> float:
        """Count a failure and return the pause that follows it."""
        self.failures += 1
        return pause_s(self.failures, self._first_s, self._last_s) * (1.0 - self._jitter * random.random())

    def wait(self, stop: Event | None = None, *, at_least_s: float = 0.0) -> bool:
        """Sleep for the next pause, or until ``stop`` is set; returns whether it is set."""
        wait_s = max(self.next_s(), at_least_s)
        if stop is not None:
            return stop.wait(wait_s)
        time.sleep(wait_s)
        return False


STABLE_AFTER_S = 60.0
"""A process that has run for this long has not failed at its start, so the pauses begin again with the first."""


class RestartDelay:
    """When something that has died may be started again: pauses grow while it keeps dying soon after its start.

    Times are monotonic. ``first_at_once`` leaves out the pause after the first death.
    """

    def __init__(self, backoff: Backoff, started_at: float = float("-inf"), *, first_at_once: bool = False) -> None:
        self._backoff, self._started_at, self._first_at_once = backoff, started_at, first_at_once
        self._is_first = True
        self._due_at = float("-inf")

    def started(self, now: float) -> None:
        self._started_at = now

    def died(self, now: float) -> float:
        """Note that it has died; returns the pause before its next start, in seconds."""
        if now - self._started_at >= STABLE_AFTER_S:
            self._backoff.reset()
            self._is_first = True
        wait_s = 0.0 if self._first_at_once and self._is_first else self._backoff.next_s()
        self._is_first, self._due_at = False, now + wait_s
        return wait_s

    def is_over(self, now: float) -> bool:
        return now >= self._due_at


def retry(
    step: Callable[[], T], backoff: Backoff, errors: tuple[type[Exception], ...], *, limit_s: float | None = None
) -> T:
    """Call ``step`` until it raises none of ``errors``, and return its result.

    Once the next pause would end after ``limit_s``, the error is raised; without a limit that never happens.
    """
    begun_at = time.monotonic()
    while True:
        try:
            return step()
        except errors as error:
            wait_s = backoff.next_s()
            if limit_s is not None and time.monotonic() - begun_at + wait_s > limit_s:
                raise
            log.warning("trying again in %.1f s: %s", wait_s, error)
            time.sleep(wait_s)
