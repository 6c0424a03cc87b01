"""A worker without progress exits and is restarted; one that is slow, or was suspended, continues."""

from __future__ import annotations

import signal
import time

import pytest
from ratchet.watchdog import EXIT_STALLED

from tests.support.playground import Open
from tests.support.workers import wait_until

LIMIT_S = 3.0


def test_a_long_task_that_makes_progress_is_not_interrupted(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", liveness_s=LIMIT_S)
    pid = playground.pid()
    playground.throw("long-1")
    playground.wait_counted("long-1")
    assert playground.pid() == pid


def test_a_task_without_progress_ends_its_worker_and_is_retried(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", liveness_s=LIMIT_S)
    playground.throw("silent-1")
    playground.wait_counted("silent-1")
    assert playground.stack.supervisor.processes()["catching"].exit_code == EXIT_STALLED
    assert playground.restarts() == 1
    assert "made no progress" in playground.stack.log("catching")


def test_an_idle_worker_whose_celery_loop_hangs_exits(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", liveness_s=LIMIT_S)
    playground.throw("deafening-1")
    playground.wait_counted("deafening-1")
    wait_until(lambda: playground.restarts() > 0, what="a restart")
    assert "no canary has come back" in playground.stack.log("catching")
    playground.throw("second")
    playground.wait_counted("second")


@pytest.mark.parametrize("name", ["listener", "sweep", "status", "liveness"])
def test_a_worker_that_has_lost_a_thread_exits(open_playground: Open, name: str) -> None:
    playground = open_playground("catching", "counting")
    playground.throw(f"losing-{name}")
    playground.wait_counted(f"losing-{name}")
    wait_until(lambda: playground.restarts() > 0, what="a restart")
    assert playground.stack.supervisor.processes()["catching"].exit_code == EXIT_STALLED
    log = playground.stack.log("catching")
    assert f"thread {name} has ended unexpectedly" in log
    assert "RuntimeError" in log
    playground.throw("second")
    playground.wait_counted("second")


def test_a_worker_that_was_suspended_continues(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", liveness_s=LIMIT_S)
    playground.throw("first")
    playground.wait_counted("first")
    pid = playground.pid()
    playground.signal(signal.SIGSTOP)
    time.sleep(2 * LIMIT_S)
    playground.signal(signal.SIGCONT)
    playground.throw("second")
    playground.wait_counted("second")
    assert playground.pid() == pid


def test_while_redis_is_away_no_worker_is_restarted(open_playground: Open) -> None:
    playground = open_playground("catching", "counting", liveness_s=LIMIT_S)
    playground.throw("first")
    playground.wait_counted("first")
    pid = playground.pid()
    playground.stack.redis.kill()
    time.sleep(2 * LIMIT_S)
    playground.stack.redis.start()
    playground.throw("second")
    playground.wait_counted("second")
    assert playground.pid() == pid
