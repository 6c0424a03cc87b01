"""How long running work may take to stop, and what ends the wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ratchet.settings import Settings
from ratchet.systems.claims import Pulse
from ratchet.worker.stopping import CHECK_S, CLOSE_S, Stopper


class Noted(threading.Event):
    """An event that records the requested waits instead of waiting; ``meanwhile`` is called then."""

    waited = 0.0
    meanwhile: Callable[[float], None] = staticmethod(lambda _waited: None)

    def wait(self, timeout: float | None = None) -> bool:
        self.waited += 0.0 if self.is_set() else timeout or 0.0
        self.meanwhile(self.waited)
        return self.is_set()


@dataclass
class Working:
    """The part of a controller with a claim that a stopper uses."""

    settings: Settings
    stop: threading.Event = field(default_factory=threading.Event)
    reschedule: threading.Event = field(default_factory=threading.Event)
    running: dict[str, Pulse] = field(default_factory=dict)
    given_back: int = 0

    @property
    def held(self) -> Working:
        return self

    def release_all(self) -> None:
        self.given_back += 1


def stopped(working: Any, hurry: Noted, asked: int = 1) -> list[int]:
    """The exit codes after this number of stop requests."""
    codes: list[int] = []
    leave: Callable[[int], object] = codes.append
    stopper = Stopper(working, hurry=hurry, leave=leave, clock=lambda: hurry.waited)
    for _ in range(asked):
        stopper.asked()
    stopper.run()
    return codes


def test_the_grace_period_follows_the_setting() -> None:
    working, hurry = Working(Settings(control={"grace_s": 13.5})), Noted()
    assert stopped(working, hurry) == [0]
    assert (hurry.waited, hurry.is_set(), working.given_back) == (13.5, False, 1)
    assert working.reschedule.is_set()


@pytest.mark.parametrize(("says_s", "waits_s"), [(2.0, 3.5), (90.0, 90.0)])
def test_slow_work_gets_its_measured_time_to_stop(says_s: float, waits_s: float) -> None:
    working, hurry = Working(Settings(control={"grace_s": 3.5})), Noted()
    working.running["train"] = Pulse(stop_s=says_s)
    assert stopped(working, hurry) == [0]
    assert hurry.waited == waits_s


def test_work_that_has_ended_leaves_time_to_close_the_rest() -> None:
    working, hurry = Working(Settings(control={"grace_s": 3.5})), Noted()
    working.running["train"] = Pulse(stop_s=90.0)

    def done(waited_s: float) -> None:
        if waited_s >= 85.0:
            working.running.clear()

    hurry.meanwhile = done
    stopped(working, hurry)
    assert 85.0 + CLOSE_S - CHECK_S <= hurry.waited <= 85.0 + CLOSE_S


def test_a_stopping_worker_logs_its_progress() -> None:
    working, hurry, said = Working(Settings(control={"grace_s": 50.0})), Noted(), list[float]()
    working.running["train"] = Pulse()
    stopper = Stopper(
        working, hurry=hurry, leave=lambda _code: None, clock=lambda: hurry.waited, report=lambda: said.append(1)
    )
    stopper.asked()
    stopper.run()
    assert len(said) == 3


def test_work_that_turns_out_slower_meanwhile_is_given_longer() -> None:
    working, hurry = Working(Settings(control={"grace_s": 3.5})), Noted()
    working.running["train"] = Pulse(stop_s=5.0)

    def slower(waited_s: float) -> None:
        if waited_s >= 4.0:
            working.running["train"].stop_s = 20.0

    hurry.meanwhile = slower
    stopped(working, hurry)
    assert hurry.waited == 20.0


def test_a_second_stop_request_does_not_wait() -> None:
    working, hurry = Working(Settings()), Noted()
    assert stopped(working, hurry, asked=2) == [0]
    assert (hurry.is_set(), working.given_back) == (True, 1)
