from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from deployer.patient_server import PatientServer
from ratchet.errors import ServingError, Stopping, TransientError
from ratchet.inference.generator import Decoding

WAIT_S = 30.0


class SlowServer:
    """A server whose calls end when they are allowed to."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.calls = list[tuple[Any, ...]]()
        self.error: Exception | None = None
        self.is_away = False

    def load(self, *arguments: str) -> None:
        self._called("load", *arguments)

    def unload(self, *arguments: str) -> None:
        self._called("unload", *arguments)

    def generate(self, *arguments: Any) -> list[str]:
        self._called("generate", *arguments)
        return ["answer"]

    def score(self, *arguments: Any) -> list[str]:
        self._called("score", *arguments)
        return ["scores"]

    def health(self) -> str:
        if self.is_away:
            raise TransientError("nobody answers")
        return "fine"

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        assert self.may_end.wait(WAIT_S)
        if self.error is not None:
            raise self.error


class Noted:
    """A work that does something at its n-th progress report."""

    def __init__(self, number: int, then: Callable[[], None]):
        self.notes = list[str]()
        self._number, self._then = number, then

    def progress(self, note: str) -> None:
        self.notes.append(note)
        if len(self.notes) == self._number:
            self._then()


@pytest.fixture
def server() -> Iterator[SlowServer]:
    slow = SlowServer()
    yield slow
    slow.may_end.set()


def patient(server: SlowServer, work: Noted) -> Any:
    return PatientServer(server, work, interval_s=0.01)  # type: ignore[arg-type]


def test_progress_is_reported_for_as_long_as_a_load_takes(server: SlowServer) -> None:
    work = Noted(5, server.may_end.set)
    patient(server, work).load("c1", "folder", "digest")
    assert server.calls == [("load", "c1", "folder", "digest")]
    assert work.notes[0] == "loading c1"
    assert len(work.notes) >= 5
    assert all(note.startswith("loading c1, for ") for note in work.notes[1:])


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda asked: asked.unload("c1"), None),
        (lambda asked: asked.generate("c1", [], Decoding()), ["answer"]),
        (lambda asked: asked.score("c1", [], []), ["scores"]),
    ],
)
def test_other_long_calls_report_progress_too(server: SlowServer, call: Callable[[Any], Any], result: Any) -> None:
    work = Noted(3, server.may_end.set)
    assert call(patient(server, work)) == result
    assert len(work.notes) >= 3


@pytest.mark.parametrize("error", [ServingError("NaN weights"), TransientError("overloaded"), TimeoutError("a disk")])
def test_what_the_server_refuses_is_raised(server: SlowServer, error: Exception) -> None:
    server.error = error
    with pytest.raises(type(error), match=str(error)):
        patient(server, Noted(3, server.may_end.set)).load("c1", "folder", "digest")


def test_a_server_that_reports_no_health_is_not_waited_for(server: SlowServer) -> None:
    def leave() -> None:
        server.is_away = True

    with pytest.raises(TransientError, match="nobody answers"):
        patient(server, Noted(3, leave)).load("c1", "folder", "digest")


def test_a_worker_that_stops_does_not_wait(server: SlowServer) -> None:
    def stop() -> None:
        raise Stopping("the worker stops")

    with pytest.raises(Stopping):
        patient(server, Noted(3, stop)).load("c1", "folder", "digest")


def test_short_calls_are_passed_on(server: SlowServer) -> None:
    asked = patient(server, Noted(0, lambda: None))
    assert asked.health() == "fine"
    server_state: Any = SimpleNamespace(live=lambda: "live", stats=lambda id: f"stats of {id}", switch=print)
    other = patient(server_state, Noted(0, lambda: None))
    assert (other.live(), other.stats("c1")) == ("live", "stats of c1")
