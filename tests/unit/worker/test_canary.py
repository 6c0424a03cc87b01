from __future__ import annotations

import time

import pytest
from ratchet.bus.broker import broker_app
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.errors import TransientError
from ratchet.worker.canary import CANARY, Canary

from tests.support.redis import redis_server

__all__ = ["redis_server"]


def test_silence_counts_from_the_first_canary_that_is_out(redis_server: EmbeddedRedis) -> None:
    app = broker_app(redis_server.url)
    canary = Canary(app, "me")
    assert canary.silent_s() == 0.0
    canary.send(60.0)
    time.sleep(0.01)
    before = canary.silent_s()
    canary.send(60.0)
    assert canary.silent_s() >= before > 0.0
    app.tasks[CANARY]()
    assert canary.silent_s() == 0.0
    app.close()


def test_no_canary_is_owed_while_redis_is_away(redis_server: EmbeddedRedis) -> None:
    app = broker_app(redis_server.url)
    canary = Canary(app, "me")
    canary.send(60.0)
    redis_server.kill()
    with pytest.raises(TransientError):
        canary.send(60.0)
    assert canary.silent_s() == 0.0
    app.close()


def test_lost_time_is_forgiven(redis_server: EmbeddedRedis) -> None:
    app = broker_app(redis_server.url)
    canary = Canary(app, "me")
    canary.send(60.0)
    time.sleep(0.05)
    silent_s = canary.silent_s()
    canary.excuse(0.02)
    assert 0.0 < canary.silent_s() < silent_s + 1.0
    canary.excuse(1000.0)
    assert canary.silent_s() == 0.0
    app.close()
