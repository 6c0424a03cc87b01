from __future__ import annotations

import threading
import time

import pytest
from ratchet.backoff import Backoff, pause_s, retry
from ratchet.errors import LedgerBehind, PreconditionFailed, TransientError

AWAY = (TransientError,)


def test_pauses_double_up_to_a_limit_and_start_again_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_jitter_only_shortens_a_pause() -> None:
    backoff = Backoff(8.0, 8.0, jitter=0.5)
    pauses = [backoff.next_s() for _ in range(100)]
    assert 4.0 <= min(pauses) < max(pauses) <= 8.0


def test_a_wait_ends_when_the_stop_is_set() -> None:
    stop = threading.Event()
    assert not Backoff(0.001, 0.001).wait(stop)
    stop.set()
    begun = time.monotonic()
    assert Backoff(60.0, 60.0).wait(stop)
    assert time.monotonic() - begun < 30.0


def test_a_server_may_ask_for_a_longer_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    assert not Backoff(1.0, 2.0).wait(at_least_s=30.0)
    assert pauses == [30.0]


def test_any_number_of_failures_has_a_pause() -> None:
    assert [pause_s(failures, 1.0, 60.0) for failures in (1, 2, 3, 100, 10_000)] == [1.0, 2.0, 4.0, 60.0, 60.0]


def quick() -> Backoff:
    return Backoff(0.001, 0.002)


class Start:
    """Fails with each of these errors, then succeeds."""

    def __init__(self, *errors: Exception):
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "started"


def test_an_absent_store_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    assert retry(Start(*[TransientError("Redis is away")] * 4), quick(), AWAY) == "started"
    assert caplog.text.count("Redis is away") == 4


def test_without_time_the_first_error_is_raised() -> None:
    start = Start(TransientError("the first"), TransientError("the second"))
    with pytest.raises(TransientError, match="the first"):
        retry(start, quick(), AWAY, limit_s=0)


def test_waiting_ends_with_the_last_error() -> None:
    with pytest.raises(TransientError, match="away"):
        retry(Start(*[TransientError("away")] * 1000), quick(), AWAY, limit_s=0.05)


def test_a_schema_is_waited_for_on_request() -> None:
    assert retry(Start(LedgerBehind("run it")), quick(), (*AWAY, LedgerBehind), limit_s=60) == "started"
    with pytest.raises(LedgerBehind):
        retry(Start(LedgerBehind("run it")), quick(), AWAY, limit_s=60)


def test_a_refusal_is_not_waited_for() -> None:
    with pytest.raises(PreconditionFailed):
        retry(Start(PreconditionFailed("no")), quick(), (*AWAY, LedgerBehind), limit_s=60)
