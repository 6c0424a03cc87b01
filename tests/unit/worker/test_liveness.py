from __future__ import annotations

import time
from pathlib import Path

import pytest
from ratchet.bus.celery_app import broker_app
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.errors import TransientError
from ratchet.settings import Settings
from ratchet.worker.liveness import CANARY, RECONNECT_S, Canary, alive_path

from tests.support.redis import redis_server

__all__ = ["redis_server"]


def test_silence_is_counted_from_the_first_unanswered_canary(redis_server: EmbeddedRedis) -> None:
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


def test_no_canary_is_expected_while_redis_is_away_or_celery_reconnects(redis_server: EmbeddedRedis) -> None:
    app = broker_app(redis_server.url)
    canary = Canary(app, "me")
    assert canary.allowed_s == RECONNECT_S  # Celery has yet to connect
    canary.send(60.0)
    app.tasks[CANARY]()
    assert canary.allowed_s == 0.0
    canary.send(60.0)
    redis_server.kill()
    with pytest.raises(TransientError):
        canary.send(60.0)
    assert (canary.silent_s(), canary.allowed_s) == (0.0, RECONNECT_S)
    app.close()


def test_lost_time_does_not_count(redis_server: EmbeddedRedis) -> None:
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


def test_the_liveness_file_follows_the_setting(tmp_path: Path) -> None:
    usual = alive_path(Settings(home=tmp_path), "testing@box+0")
    assert (usual.parent, usual.name) == (tmp_path / "status", "testing@box+0.alive")
    file = tmp_path / "alive"
    assert alive_path(Settings(home=tmp_path, control={"alive_file": file}), "testing@box+0") == file
