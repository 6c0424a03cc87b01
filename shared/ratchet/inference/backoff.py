"""Pauses between tries: doubling, jittered, and as long as the server asks."""

from __future__ import annotations

import random
import time

LONGEST_S = 30.0


class Backoff:
    """``attempts`` tries in all. Each pause is drawn from the upper half of twice the last one."""

    def __init__(self, attempts: int, first_s: float):
        self._left = attempts - 1
        self._pause_s = first_s

    def wait(self, wished: str | None = None) -> bool:
        """Sleep before the next try; False where there is none left. ``wished`` is a Retry-After in seconds."""
        if self._left <= 0:
            return False
        self._left -= 1
        time.sleep(max(self._pause_s * random.uniform(0.5, 1.0), _seconds(wished)))
        self._pause_s = min(2 * self._pause_s, LONGEST_S)
        return True


def _seconds(wished: str | None) -> float:
    """A Retry-After of seconds, at most the longest pause; a date counts as none."""
    try:
        return min(max(float(wished or 0), 0.0), LONGEST_S)
    except ValueError:
        return 0.0
