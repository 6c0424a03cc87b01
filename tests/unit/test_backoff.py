from __future__ import annotations

import threading
import time

import pytest
from ratchet.backoff import Backoff, pause_s


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
