"""Faults of the chaos rounds on real stores without a stack: each strikes, and leaves what it struck as it was."""

from __future__ import annotations

import random
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
from benchmarks.chaos.live_run import LiveRun, Stuck
from benchmarks.chaos.s3_server import S3Server
from tests.support.home import Home, small_home
from tests.support.postgres import Postgres

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


def test_faults_of_s3_and_of_the_clock_end(run: LiveRun, tmp_path: Path) -> None:
    run.clock = tmp_path / "clock"
    run.clock.write_text("+0\n")
    assert STRIKES["clock jumps by +1 h"](run, random.Random(1)) == "the clock is +1 h off"
    assert run.clock.read_text() == "+3600\n"
    assert STRIKES["clock jumps by -1 h"](run, random.Random(1)) == "the clock is +0 h off"
    with S3Server(tmp_path / "bucket") as run.s3:
        for name in ("S3 away", "S3 answers 503"):
            STRIKES[name](run, random.Random(1))
        assert not run.s3.is_away
        assert not run.s3.failing.is_set()


def test_what_is_hostile_must_be_refused() -> None:
    assert http_faults._refused("nested", 400) == "nested: 400"
    assert http_faults._refused("nested", 0) == "nested: hung up"
    for status in (200, 500):
        with pytest.raises(Stuck, match=str(status)):
            http_faults._refused("nested", status)
