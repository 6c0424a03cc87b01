"""Trouble of the stores and of the clock, each on a stack of its own: PostgreSQL, a small disk, a clock that jumps."""

from __future__ import annotations

import random
import time

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.faults.process_faults import kill_any, kill_worker
from benchmarks.chaos.live_run import LiveRun, clock_offset_s, set_clock
from tests.support import disk

AWAY_S = 3.0
HOUR_S = 3600
BACKENDS = text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid != pg_backend_pid()")


def restart_postgres(run: LiveRun, _dice: random.Random) -> str:
    assert run.postgres is not None
    run.postgres.restart()
    return "crashed and recovered"


def stop_postgres(run: LiveRun, _dice: random.Random) -> str:
    assert run.postgres is not None
    run.postgres.stop()
    time.sleep(AWAY_S)
    run.postgres.start()
    return f"away for {AWAY_S:g} s"


def end_backends(run: LiveRun, _dice: random.Random) -> str:
    engine = create_engine(run.ledger.url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        return f"ended {connection.scalar(BACKENDS)} connections"


def leave_s3(run: LiveRun, _dice: random.Random) -> str:
    assert run.s3 is not None
    run.s3.away()
    time.sleep(AWAY_S)
    run.s3.come_back()
    return f"away for {AWAY_S:g} s"


def fail_s3(run: LiveRun, _dice: random.Random) -> str:
    assert run.s3 is not None
    run.s3.failing.set()
    try:
        time.sleep(AWAY_S)
    finally:
        run.s3.failing.clear()
    return f"answered 503 for {AWAY_S:g} s"


def fill_disk(run: LiveRun, dice: random.Random) -> str:
    assert run.disk is not None
    disk.fill(run.disk)
    try:
        time.sleep(dice.uniform(0.5, AWAY_S))
    finally:
        disk.free(run.disk)
    return "full, then free again"


def kill_on_full_disk(run: LiveRun, dice: random.Random) -> str:
    """Whoever is started on a full disk must wait until there is room."""
    assert run.disk is not None
    disk.fill(run.disk)
    try:
        killed = kill_any(run, dice)
        time.sleep(AWAY_S)
    finally:
        disk.free(run.disk)
    return f"{killed} on a full disk"


def jump(hours: int) -> Fault:
    def strike(run: LiveRun, _dice: random.Random) -> str:
        assert run.clock is not None
        off_s = clock_offset_s(run.clock) + hours * HOUR_S
        set_clock(run.clock, off_s)
        time.sleep(AWAY_S)
        return f"the clock is {off_s / HOUR_S:+g} h off"

    return Fault(f"clock jumps by {hours:+d} h", strike, "clock")


STORE_FAULTS = (
    Fault("PostgreSQL crashes and recovers", restart_postgres, "postgres"),
    Fault("PostgreSQL away", stop_postgres, "postgres"),
    Fault("PostgreSQL ends all connections", end_backends, "postgres"),
    Fault("worker killed on PostgreSQL", kill_worker, "postgres"),
    Fault("S3 away", leave_s3, "s3"),
    Fault("S3 answers 503", fail_s3, "s3"),
    Fault("worker killed on S3", kill_worker, "s3"),
    Fault("disk full and freed", fill_disk, "small disk"),
    Fault("any process killed on a full disk", kill_on_full_disk, "small disk"),
    jump(1),
    jump(-1),
)
