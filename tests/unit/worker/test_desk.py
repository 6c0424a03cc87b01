from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ratchet.errors import Stopping
from ratchet.systems import Lane, System
from ratchet.systems.controller import Controller
from ratchet.worker.desk import Desk


@dataclass
class Looks:
    """Stands where the controller would be: it notes each look, and lets it end when the test says so."""

    system: System
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_end: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def look(self, lane: str, cause: str | None) -> int:
        self.seen.append((lane, cause))
        self.begun.release()
        assert self.may_end.acquire(timeout=20)
        return 0


def lane(name: str) -> Lane:
    return Lane(name, consumes=(), find=lambda _session, _settings: [], do=lambda _work: None)  # type: ignore[arg-type,return-value]


def desk_of(*lanes: str) -> tuple[Desk, Looks]:
    looks = Looks(System("s", "3090", "", emits=(), sweep_s=60.0, lanes=tuple(lane(name) for name in lanes)))
    controller: Controller = looks  # type: ignore[assignment]
    return Desk(controller), looks


def begin(desk: Desk, looks: Looks, name: str = "a", cause: str | None = None) -> threading.Thread:
    thread = threading.Thread(target=desk.look, args=(name, cause))
    thread.start()
    assert looks.begun.acquire(timeout=20)
    return thread


def test_a_ring_is_handed_to_the_pool_once_until_it_begins() -> None:
    desk, looks = desk_of("a")
    handed: list[tuple[str, str | None]] = []
    desk.attach(lambda name, cause: handed.append((name, cause)))
    desk.ring("a", "first")
    desk.ring("a", "second")
    assert handed == [("a", "first")]
    assert desk.free_lanes() == []
    looks.may_end.release()
    desk.look("a", "first")
    assert desk.free_lanes() == ["a"]


def test_rings_during_a_look_make_one_more_look() -> None:
    desk, looks = desk_of("a")
    desk.attach(lambda _name, _cause: None)
    thread = begin(desk, looks, cause="one")
    for cause in ("two", "three", "four"):
        desk.ring("a", cause)
    desk.look("a", "five")
    looks.may_end.release(2)
    thread.join()
    assert looks.seen == [("a", "one"), ("a", "five")]
    assert desk.free_lanes() == ["a"]


def test_lanes_look_side_by_side() -> None:
    desk, looks = desk_of("a", "b")
    desk.attach(lambda _name, _cause: None)
    first = begin(desk, looks, "a")
    assert desk.free_lanes() == ["b"]
    assert not desk.all_looking
    second = begin(desk, looks, "b")
    assert desk.all_looking
    looks.may_end.release(2)
    first.join()
    second.join()


def test_without_celery_a_look_has_a_thread_of_its_own() -> None:
    desk, looks = desk_of("a")
    desk.ring("a", "sweep")
    assert looks.begun.acquire(timeout=20)
    looks.may_end.release()
    desk.wait_quiet()
    assert looks.seen == [("a", "sweep")]


def test_what_a_lost_connection_took_is_handed_over_again() -> None:
    desk, _ = desk_of("a", "b")
    handed: list[str] = []
    desk.attach(lambda _name, _cause: None)
    desk.ring("a", "cause")
    desk.detach()
    assert not desk.attached
    desk.attach(lambda name, _cause: handed.append(name))
    assert handed == ["a"]


def test_what_the_pool_never_begins_is_handed_over_again_in_time() -> None:
    desk, looks = desk_of("a")
    handed: list[str] = []
    desk.attach(lambda name, _cause: handed.append(name))
    desk.ring("a")
    desk.hand_again(after_s=3600.0)
    assert handed == ["a"]
    desk.hand_again(after_s=0.0)
    assert handed == ["a", "a"]
    looks.may_end.release()
    desk.look("a")
    desk.hand_again(after_s=0.0)
    assert handed == ["a", "a"]


def test_there_is_nothing_to_read_for_while_celery_is_away() -> None:
    desk, _ = desk_of("a")
    assert desk.wait_free(0.01) == []
    desk.attach(lambda _name, _cause: None)
    assert desk.wait_free(0.01) == ["a"]


def test_a_look_that_stops_or_fails_frees_its_lane() -> None:
    desk, looks = desk_of("a")

    def stopping(_lane: str, _cause: str | None) -> int:
        raise Stopping("asked to")

    looks.look = stopping  # type: ignore[method-assign]
    desk.look("a")
    assert desk.free_lanes() == ["a"]
