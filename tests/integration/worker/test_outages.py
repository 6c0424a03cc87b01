"""Redis or the ledger is away for a while: workers wait, nothing is lost, and no failure is counted."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

from ratchet.bus.connection import connect

from tests.support.playground import Open, Playground
from tests.support.postgres import Postgres
from tests.support.workers import wait_until


def test_the_loop_continues_after_redis_is_killed_and_restarted(playground: Playground) -> None:
    playground.throw("slow-1", "before")
    playground.wait_working("slow-1")
    playground.stack.redis.kill()
    playground.throw("meanwhile-1", "meanwhile-2")
    wait_until(lambda: ("catching", "slow-1") in playground.verdicts(), what="work going on without Redis")
    playground.stack.redis.start()
    playground.throw("after")
    playground.wait_counted("slow-1", "before", "meanwhile-1", "meanwhile-2", "after")


def test_the_loop_continues_after_redis_is_flushed(playground: Playground) -> None:
    client = connect(playground.stack.redis.url)
    toys = [f"flushed-{number}" for number in range(12)]
    for number, toy in enumerate(toys):
        playground.throw(toy)
        if number % 4 == 2:
            client.flushall()
    playground.wait_counted(*toys)
    playground.throw("next")
    playground.wait_counted("next")


def test_the_loop_waits_for_a_redis_that_does_not_answer(playground: Playground) -> None:
    playground.throw("slow-2")
    playground.wait_working("slow-2")
    connect(playground.stack.redis.url).client_pause(3000)
    playground.throw("paused")
    playground.wait_counted("slow-2", "paused")


def test_workers_wait_while_redis_refuses_writes(playground: Playground) -> None:
    """As it does on a full disk, or at its memory limit: it answers, but with an error."""
    client = connect(playground.stack.redis.url)
    log = len(playground.stack.log("catching"))
    client.config_set("min-replicas-to-write", 1)
    try:
        client.client_kill_filter(_type="normal", skipme=True)  # so that they declare their queues anew
        playground.throw("refused-1", "refused-2")
        wait_until(lambda: "refuses commands" in playground.stack.log("catching")[log:], what="the line about it")
        time.sleep(2.0)
    finally:
        client.config_set("min-replicas-to-write", 0)
    playground.throw("taken")
    playground.wait_counted("refused-1", "refused-2", "taken")
    wait_until(lambda: "takes commands again" in playground.stack.log("catching")[log:], what="the end of it")
    said = playground.stack.log("catching")[log:]
    assert said.count("refuses commands") == 1
    assert "Traceback" not in said
    assert playground.all_restarts() == 0


def test_workers_wait_for_a_locked_ledger(open_playground: Open, tmp_path: Path) -> None:
    path = tmp_path / "home" / "ledger.db"
    playground = open_playground("catching", "counting", ledger_url=f"sqlite:///{path}?timeout=0.2")
    playground.throw("slow-1", "ball")
    playground.wait_working("slow-1")
    with sqlite3.connect(path, isolation_level=None) as locker:
        locker.execute("BEGIN IMMEDIATE")
        time.sleep(2 * playground.stack.settings.control.lease_s)  # every lease runs out, nobody may renew
        locker.execute("ROLLBACK")
    locker.close()
    playground.wait_counted("slow-1", "ball")
    assert "waits" in playground.stack.log("catching")
    assert playground.all_restarts() == 0


def test_workers_reconnect_to_a_restarted_postgresql(open_playground: Open, postgres: Postgres) -> None:
    playground = open_playground("catching", "counting", ledger_url=postgres.database())
    playground.throw("slow-1", "ball")
    playground.wait_working("slow-1")
    postgres.restart()
    playground.wait_counted("slow-1", "ball")
    playground.throw("after")
    playground.wait_counted("after")
    assert playground.all_restarts() == 0


def test_a_killed_supervisor_leaves_no_process_behind(open_playground: Open) -> None:
    playground = open_playground("catching", "counting")
    workers = [playground.pid("catching"), playground.pid("counting")]
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(playground.stack.supervisor.pid)], check=True)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), what="the end of the workers")
