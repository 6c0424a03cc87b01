"""How long running work may take to give way, and what ends the wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ratchet.settings import Settings
from ratchet.worker.stopping import Stopper


class Noted(threading.Event):
    """An event that is never waited for, and notes for how long it would have been."""

    waited: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout
        return self.is_set()


@dataclass
class Working:
    """What a stopper sees of a controller with a claim."""

    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)
    setback: threading.Event = field(default_factory=threading.Event)
    given_back: int = 0

    @property
    def holdings(self) -> Working:
        return self

    def abandon(self) -> None:
        self.given_back += 1


def stopped(working: Any, hurry: Noted, asked: int = 1) -> list[int]:
    """The exit codes that a process would have ended with after being asked so often."""
    codes: list[int] = []
    leave: Callable[[int], object] = codes.append
    stopper = Stopper(working, hurry=hurry, leave=leave)
    for _ in range(asked):
        stopper.asked()
    stopper.run()
    return codes


def test_how_long_work_may_take_to_give_way_is_set() -> None:
    working, hurry = Working(Settings(control={"grace_s": 3.5})), Noted()
    assert stopped(working, hurry) == [0]
    assert (hurry.waited, hurry.is_set(), working.given_back) == (3.5, False, 1)
    assert working.setback.is_set()


def test_asked_a_second_time_it_does_not_wait() -> None:
    working, hurry = Working(Settings()), Noted()
    assert stopped(working, hurry, asked=2) == [0]
    assert (hurry.is_set(), working.given_back) == (True, 1)
