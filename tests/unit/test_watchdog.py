"""Threads that end or stall are named; idle, stopped or suspended ones are not."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading

import pytest
from ratchet.watchdog import EXIT_STALLED, Watch, Watchdog, WatchedThread

from tests.support.workers import wait_until


class Clock:
    """A time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def look(watchdog: Watchdog, clock: Clock, seconds: int) -> str | None:
    """Check once a second; returns the last result."""
    said = None
    for _ in range(seconds):
        clock.now += 1.0
        said = watchdog.check()
    return said


def test_a_thread_is_stalled_after_its_limit_until_its_next_beat() -> None:
    clock = Clock()
    watchdog, watch = Watchdog(clock=clock), Watch("the batch", 5.0)
    watchdog.add(watch)
    watch.beat()
    assert look(watchdog, clock, 6) is None
    assert look(watchdog, clock, 1) == watchdog.problem == "the batch has stood still for more than 5 s"
    watch.beat()
    assert look(watchdog, clock, 1) is None


def test_an_idle_thread_needs_no_beats() -> None:
    clock = Clock()
    watchdog, watch = Watchdog(clock=clock), Watch("the batch", 5.0)
    watchdog.add(watch)
    watch.rest()
    assert look(watchdog, clock, 100) is None
    watch.beat()
    assert look(watchdog, clock, 6) is None
    assert look(watchdog, clock, 1) is not None


def test_the_time_in_which_no_check_could_run_does_not_count() -> None:
    """As when the process was stopped, or the machine slept."""
    clock = Clock()
    watchdog, watch = Watchdog(clock=clock), Watch("the batch", 5.0)
    watchdog.add(watch)
    assert look(watchdog, clock, 2) is None
    clock.now += 3_600.0
    assert watchdog.check() is None
    assert look(watchdog, clock, 2) is not None


def test_without_a_limit_only_the_end_of_a_thread_counts() -> None:
    clock = Clock()
    watchdog, watch = Watchdog(clock=clock), Watch("the page")
    watchdog.add(watch)
    assert look(watchdog, clock, 10_000) is None
    watch.has_ended = True
    assert watchdog.problem == "the page has ended unexpectedly"
    watchdog.remove(watch)
    assert watchdog.check() is None


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(0), None], ids=["raises", "exits", "returns"])
def test_a_thread_that_ends_unasked_is_named_and_its_error_logged(
    error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    watchdog = Watchdog()

    def work() -> None:
        if error is not None:
            raise error

    thread = WatchedThread(work, watchdog, threading.Event(), name="listener")
    with caplog.at_level(logging.ERROR):
        thread.start()
        thread.join(60)
    assert watchdog.problem == "thread listener has ended unexpectedly"
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == ([error] if error else [])


def test_a_thread_that_was_asked_to_end_is_forgotten() -> None:
    watchdog, stop = Watchdog(), threading.Event()

    def work() -> None:
        stop.wait(60)

    thread = WatchedThread(work, watchdog, stop, name="listener", limit_s=1e6)
    thread.start()
    assert watchdog.check() is None
    stop.set()
    wait_until(lambda: not thread.is_alive())
    assert watchdog.problem is None


HOLDING_THE_LOG = """
import logging, threading, time
from ratchet.watchdog import end_process, leave_process
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
def hold_the_log():
    with handler.lock:
        time.sleep(10_000)
threading.Thread(target=hold_the_log).start()
time.sleep(0.2)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)


def test_a_process_is_ended_though_a_thread_holds_the_log() -> None:
    """Where every thread is goes to stderr first, since that needs no lock."""
    ended = run(f"{HOLDING_THE_LOG}end_process('the batch stands still')")
    assert ended.returncode == EXIT_STALLED
    assert "hold_the_log" in ended.stderr


def test_a_slow_shutdown_is_ended_with_a_log_line() -> None:
    left = run("from ratchet.watchdog import leave_process; leave_process('told to stop 70 s ago')")
    assert (left.returncode, left.stderr.splitlines()) == (
        0,
        ["this process exits without waiting any longer: told to stop 70 s ago"],
    )
    assert run(f"{HOLDING_THE_LOG}leave_process('told to stop 70 s ago')").returncode == 0
