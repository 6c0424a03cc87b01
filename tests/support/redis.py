"""A real Redis for a test: its own folder, port and password, to be killed and started again at will."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ratchet.bus.embedded_redis import EmbeddedRedis


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """Running; ``kill()`` then ``start()`` is a crash and a restart on the same port and data."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server
