"""What training says of itself travels through Redis, and nothing suffers where it does not."""

from __future__ import annotations

from pathlib import Path

from ratchet.bus.bulletin import KEPT_S, KEY, Bulletin, newest, put_up
from ratchet.bus.connection import connect
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.bus.ports import free_port
from ratchet.settings import Settings

from tests.support.previews import preview

TOLD = Bulletin({"state": "training", "step": 700}, (preview(step=600), preview(step=700, correct=False)))


def test_what_is_put_up_is_read_elsewhere_for_a_while(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as redis, connect(redis.url) as client:
        there = Settings(home=tmp_path / "elsewhere", redis={"url": redis.url})
        assert newest(there) is None
        put_up(client, TOLD)
        assert newest(there) == TOLD
        assert 0 < client.ttl(KEY) <= KEPT_S
        client.set(KEY, '{"status": {}, "dreams": []}')
        assert newest(there) is None


def test_without_a_redis_there_is_none(tmp_path: Path) -> None:
    assert newest(Settings(home=tmp_path)) is None
    assert newest(Settings(home=tmp_path, redis={"url": f"redis://127.0.0.1:{free_port()}/0"})) is None
