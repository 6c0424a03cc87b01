"""What ends a server that has come to a standstill, and what watches over that in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ratchet.serving.guard import CLOSE_S, Guard, watched_loop
from ratchet.watchdog import Watch, Watchdog

from tests.support.workers import wait_until


def guarding(
    watchdog: Watchdog, ended: list[str], is_stopping: Callable[[], bool] = lambda: False, drain_s: float = 10.0
) -> Guard:
    guard = Guard(watchdog, is_stopping=is_stopping, drain_s=drain_s, end=ended.append)
    guard.start()
    return guard


def test_a_thread_that_has_ended_ends_the_server() -> None:
    watchdog, ended = Watchdog(), list[str]()
    watch = Watch("the batch")
    watchdog.add(watch)
    guard = guarding(watchdog, ended)
    guard.check()
    assert ended == []
    watch.has_ended = True
    wait_until(lambda: bool(ended))
    assert ended == ["the batch has ended unexpectedly"]
    guard.close()


def test_a_slow_shutdown_is_ended_and_is_no_stall() -> None:
    """As one that still loads a large model."""
    ended, left = list[str](), list[str]()
    guard = Guard(Watchdog(), is_stopping=lambda: True, drain_s=0.5 - CLOSE_S, end=ended.append, leave=left.append)
    guard.start()
    wait_until(lambda: bool(left))
    assert left == ["the server has not shut down within 0.5 s"]
    assert ended == []
    guard.close()


def test_a_server_suspended_during_shutdown_keeps_its_full_time() -> None:
    ended, now = list[str](), [0.0]

    def is_stopping() -> bool:
        now.append(now[-1] + (3_600.0 if len(now) == 2 else 0.1))
        return True

    guard = Guard(
        Watchdog(),
        is_stopping=is_stopping,
        drain_s=3.0 - CLOSE_S,
        end=ended.append,
        leave=ended.append,
        clock=lambda: now[-1],
    )
    guard.start()
    wait_until(lambda: len(now) > 4)
    assert ended == []
    guard.close()


def test_the_event_loop_checks_the_guard() -> None:
    def fail() -> bool:
        raise ValueError("broken")

    ended = list[str]()
    guard = guarding(Watchdog(), ended, is_stopping=fail)
    wait_until(lambda: bool(guard.check() or ended))
    assert ended[0] == "thread guard has ended unexpectedly"


def test_a_closed_guard_ends_nothing() -> None:
    ended = list[str]()
    guard = guarding(Watchdog(), ended)
    guard.close()
    guard.check()
    assert ended == []


def test_the_event_loop_is_watched_while_it_serves() -> None:
    watchdog, ticks = Watchdog(), list[Watch]()

    async def serve() -> None:
        async with watched_loop(watchdog, lambda: ticks.extend(watchdog._silences)):
            while not ticks:
                await asyncio.sleep(0.01)

    asyncio.run(serve())
    assert [(watch.name, watch.beats > 0) for watch in ticks] == [("the event loop", True)]
    assert list(watchdog._silences) == []
