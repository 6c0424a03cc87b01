"""What a fault is: a name, the stack that it needs, and a function that strikes, heals, and says what it did."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.chaos.live_run import LiveRun

Strike = Callable[[LiveRun, random.Random], str]


@dataclass(frozen=True)
class Fault:
    """``strike`` heals what does not heal by itself, and returns what it did in a few words."""

    name: str
    strike: Strike
    segment: str = "plain"
