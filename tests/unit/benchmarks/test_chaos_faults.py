"""Faults of the chaos rounds on real stores without a stack: each strikes, and leaves what it struck as it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.errors import ArtifactError
from redis import Redis

from benchmarks.chaos.faults import damage_faults, http_faults, process_faults, redis_faults, store_faults
from benchmarks.chaos.faults.catalogue import FAULTS
from benchmarks.chaos.live_run import LiveRun, Stuck, set_clock
from benchmarks.chaos.s3_server import S3Server
from benchmarks.chaos.segments import CLOCK_SOURCE
from tests.support.home import Home, small_home
from tests.support.postgres import Postgres

CLOCKS = """
import sqlite3, sys, time
ledger = sqlite3.connect(":memory:")
for _ in range(3):
    sys.stdin.readline()
    time.sleep(0.01)
    print(time.time(), *ledger.execute("SELECT strftime('%s', 'now')").fetchone(), time.monotonic(), flush=True)
"""
STRIKES = {fault.name: fault.strike for fault in FAULTS}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveRun]:
    """One in which nothing runs. Faults hold for a moment only."""
    for module, name in (
        (redis_faults, "HELD_S"),
        (damage_faults, "HELD_S"),
        (store_faults, "AWAY_S"),
        (process_faults, "SUSPENDED_S"),
    ):
        monkeypatch.setattr(module, name, 0.05)
    made = LiveRun(tmp_path / "home", {}, {})
    yield made
    made.ledger.close()


def test_faults_of_redis_leave_it_writable_and_without_a_limit(run: LiveRun) -> None:
    with EmbeddedRedis(run.home / "redis") as server:
        redis = Redis.from_url(server.url)
        said = {}
        for fault in redis_faults.REDIS_FAULTS:
            redis.xadd("ratchet:events:checkpoint.saved", {"body": "x"})
            redis.sadd("_kombu.binding.3090.testing", "x")
            said[fault.name] = fault.strike(run, random.Random(1))
            redis.set("still", "writable")
        assert said["redis flushed"] == "flushed 2 keys"
        assert said["bindings deleted"] == said["streams deleted"] == "deleted 1 keys"
        assert redis.config_get("maxmemory*")["maxmemory"] == "0"
        assert redis.info("replication")["role"] == "master"
        redis.close()


def test_a_redis_that_is_away_for_long_is_said(run: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_faults, "TRY_S", 0.001)
    with pytest.raises(Stuck, match="Redis was not reached"):
        STRIKES["redis flushed"](run, random.Random(1))


@pytest.fixture
def home(run: LiveRun) -> Iterator[Home]:
    with small_home(run.home) as made:
        yield made


def test_a_flipped_byte_damages_an_artifact_until_it_is_put_back(run: LiveRun, home: Home) -> None:
    said = STRIKES["byte flipped in a weights"](run, random.Random(1))
    (artifact,) = run.damaged
    assert artifact[:12] in said
    ArtifactStore(home.settings.artifact_url).fetch(artifact)
    file = run.home / "artifacts" / artifact / "model.safetensors"
    damage_faults._flip(file, 0)
    with pytest.raises(ArtifactError):
        ArtifactStore(home.settings.artifact_url).fetch(artifact)
    assert not file.stat().st_mode & 0o222
    assert STRIKES["byte flipped in a training state"](run, random.Random(1)) == "there is no training state yet"


def test_an_operators_deployment_of_a_round_takes_another_checkpoint(run: LiveRun, home: Home) -> None:
    assert process_faults._deploy_another(run, random.Random(1)) is None
    added = home.add_checkpoint()
    assert process_faults._deploy_another(run, random.Random(1)) == added
    assert process_faults._deploy_another(run, random.Random(1)) == home.base_id()


def test_a_suspended_process_goes_on(run: LiveRun) -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process_faults._suspend([process.pid, 2**22 - 1])
        process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    assert not process_faults._signal(process.pid, signal.SIGKILL)


def test_faults_of_postgresql_end_with_it_running(run: LiveRun, postgres: Postgres) -> None:
    other = LiveRun(run.home.with_name("other"), {"LEDGER__URL": postgres.database()}, {})
    other.postgres = postgres
    assert STRIKES["PostgreSQL ends all connections"](other, random.Random(1)).startswith("ended ")
    other.ledger.close()


def test_faults_of_s3_end(run: LiveRun, tmp_path: Path) -> None:
    with S3Server(tmp_path / "bucket") as run.s3:
        for name in ("S3 away", "S3 answers 503"):
            STRIKES[name](run, random.Random(1))
        assert not run.s3.is_away
        assert not run.s3.failing.is_set()


@pytest.mark.skipif(shutil.which("cc") is None or sys.platform != "linux", reason="needs a C compiler, and Linux")
def test_the_wall_clock_of_a_running_process_jumps_and_its_monotonic_clock_does_not(
    run: LiveRun, tmp_path: Path
) -> None:
    run.clock = tmp_path / "clock"
    set_clock(run.clock, 0)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "clock.so", CLOCK_SOURCE, "-ldl"], check=True)
    told = {**os.environ, "LD_PRELOAD": str(tmp_path / "clock.so"), "CHAOS_CLOCK": str(run.clock)}
    with subprocess.Popen(
        [sys.executable, "-c", CLOCKS], env=told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        read = []
        for name in ("clock jumps by +1 h", "clock jumps by -1 h", None):
            process.stdin.write("\n")
            process.stdin.flush()
            read.append([float(value) for value in process.stdout.readline().split()])
            if name is not None:
                STRIKES[name](run, random.Random(1))
        process.communicate("\n", timeout=60)
    for (wall, ledgers, monotonic), hours in zip(read, (0, 1, 0), strict=True):
        since_s = monotonic - read[0][2]
        assert abs(wall - read[0][0] - since_s - 3_600 * hours) < 5.0
        assert abs(ledgers - wall) < 5.0


def test_what_is_hostile_must_be_refused() -> None:
    assert http_faults._refused("nested", 400) == "nested: 400"
    assert http_faults._refused("nested", 0) == "nested: hung up"
    for status in (200, 500):
        with pytest.raises(Stuck, match=str(status)):
            http_faults._refused("nested", status)
