"""What can happen to Redis while it runs: emptied, paused, read-only, full, and keys lost. Its kill is in
process_faults."""

from __future__ import annotations

import random
import time

from redis.exceptions import RedisError

from benchmarks.chaos.faults.fault import Fault
from benchmarks.chaos.live_run import LiveRun, Stuck

HELD_S = 2.0
TRY_S = 0.2
STREAMS = "ratchet:events:*"
BINDINGS = "_kombu.binding.*"


def flush(run: LiveRun, _dice: random.Random) -> str:
    redis = run.redis()
    keys = redis.dbsize()
    redis.flushall()
    return f"flushed {keys} keys"


def pause(run: LiveRun, _dice: random.Random) -> str:
    """No command is answered for a while, and connections stay open."""
    run.redis().client_pause(int(1000 * HELD_S), all=True)
    time.sleep(HELD_S)
    return f"paused for {HELD_S:g} s"


def make_read_only(run: LiveRun, _dice: random.Random) -> str:
    """A replica of a server that is not there refuses writes, as after a fail-over."""
    redis = run.redis()
    redis.slaveof("127.0.0.1", 1)
    try:
        time.sleep(HELD_S)
    finally:
        redis.slaveof()
    return f"read-only for {HELD_S:g} s"


def fill(policy: str) -> Fault:
    def strike(run: LiveRun, _dice: random.Random) -> str:
        redis = run.redis()
        redis.config_set("maxmemory-policy", policy)
        redis.config_set("maxmemory", "1mb")
        try:
            time.sleep(HELD_S)
            keys = redis.dbsize()
        finally:
            redis.config_set("maxmemory", "0")
            redis.config_set("maxmemory-policy", "noeviction")
        return f"full for {HELD_S:g} s, {keys} keys left"

    return Fault(f"redis full ({policy})", strike)


def delete(name: str, pattern: str) -> Fault:
    def strike(run: LiveRun, _dice: random.Random) -> str:
        redis = run.redis()
        keys = list(redis.scan_iter(pattern, count=1000))
        if keys:
            redis.delete(*keys)
        return f"deleted {len(keys)} keys"

    return Fault(f"{name} deleted", strike)


def drop_connections(run: LiveRun, _dice: random.Random) -> str:
    run.redis().client_kill_filter(_type="normal", skipme=True)
    return "closed all connections"


def _guarded(fault: Fault) -> Fault:
    """A Redis that is being started by itself, after an earlier fault, is tried again for a moment."""

    def strike(run: LiveRun, dice: random.Random) -> str:
        for _ in range(50):
            try:
                return fault.strike(run, dice)
            except (RedisError, Stuck):
                time.sleep(TRY_S)
        raise Stuck("Redis was not reached")

    return Fault(fault.name, strike)


REDIS_FAULTS = tuple(
    map(
        _guarded,
        (
            Fault("redis flushed", flush),
            Fault("redis paused", pause),
            Fault("redis read-only", make_read_only),
            Fault("redis drops its connections", drop_connections),
            fill("noeviction"),
            fill("allkeys-lru"),
            delete("streams", STREAMS),
            delete("bindings", BINDINGS),
        ),
    )
)
