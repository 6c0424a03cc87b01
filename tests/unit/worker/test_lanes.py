"""Lanes run in their own threads; wake-ups are coalesced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from ratchet.errors import Stopping
from ratchet.systems import Lane, System
from ratchet.systems.controller import Controller
from ratchet.watchdog import Watchdog
from ratchet.worker.lanes import Lanes

from tests.support.workers import wait_until


@dataclass
class Runs:
    """A fake controller that records each run, and ends it when the test does."""

    system: System
    stop: threading.Event = field(default_factory=threading.Event)
    watchdog: Watchdog = field(default_factory=Watchdog)
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    errors: list[Exception] = field(default_factory=list)

    def run_pending(self, lane: str, cause: str | None) -> int:
        self.seen.append((lane, cause))
        self.begun.release()
        assert self.may_end.acquire(timeout=20)
        if self.errors:
            raise self.errors.pop()
        return 0

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=20)


def lane(name: str) -> Lane:
    return Lane(name, consumes=(), find=lambda _session, _settings: [], do=lambda _work: None)  # type: ignore[arg-type,return-value]


Start = Callable[..., tuple[Lanes, Runs]]


@pytest.fixture
def start() -> Iterator[Start]:
    opened: list[tuple[Lanes, Runs, list[threading.Thread]]] = []

    def made(*names: str) -> tuple[Lanes, Runs]:
        runs = Runs(System("s", "3090", "", emits=(), sweep_s=60.0, lanes=tuple(lane(name) for name in names)))
        controller: Controller = runs  # type: ignore[assignment]
        lanes = Lanes(controller)
        threads: list[threading.Thread] = [*lanes.threads()]
        for thread in threads:
            thread.start()
        opened.append((lanes, runs, threads))
        return lanes, runs

    yield made
    for lanes, runs, threads in opened:
        runs.stop.set()
        lanes.wake_all()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def test_a_woken_lane_runs_and_is_free_again(start: Start) -> None:
    lanes, runs = start("a")
    lanes.wake("a", "event")
    assert lanes.free() == []
    runs.wait_begun()
    assert lanes.wait_free(0.01) == []
    runs.may_end.release()
    assert lanes.wait_free(20) == ["a"]
    assert runs.seen == [("a", "event")]


def test_wake_ups_during_a_run_cause_one_more_run(start: Start) -> None:
    lanes, runs = start("a")
    lanes.wake("a", "one")
    runs.wait_begun()
    for cause in ("two", "three", "four"):
        lanes.wake("a", cause)
    runs.may_end.release(2)
    runs.wait_begun()
    assert lanes.wait_free(20) == ["a"]
    assert runs.seen == [("a", "one"), ("a", "four")]


def test_lanes_run_side_by_side(start: Start) -> None:
    lanes, runs = start("a", "b")
    lanes.wake("a")
    runs.wait_begun()
    assert lanes.free() == ["b"]
    lanes.wake("b")
    runs.wait_begun()
    runs.may_end.release(2)
    wait_until(lambda: sorted(lanes.free()) == ["a", "b"])


@pytest.mark.parametrize("error", [Stopping("asked to"), ZeroDivisionError("a defect")])
def test_a_run_that_stops_or_fails_leaves_its_lane_free_for_the_next(start: Start, error: Exception) -> None:
    lanes, runs = start("a")
    runs.errors.append(error)
    runs.may_end.release(2)
    lanes.wake("a", "one")
    assert lanes.wait_free(20) == ["a"]
    lanes.wake("a", "two")
    wait_until(lambda: runs.seen == [("a", "one"), ("a", "two")])


def test_a_lane_that_is_woken_after_the_stop_does_not_run(start: Start) -> None:
    lanes, runs = start("a")
    runs.stop.set()
    lanes.wake("a")
    lanes.wait_stopped()
    assert runs.seen == []
