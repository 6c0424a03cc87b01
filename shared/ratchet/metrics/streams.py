"""Redis as a source of metrics: how far each system is behind with its events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client.core import Metric
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ratchet.bus.connection import redis_trouble
from ratchet.bus.streams import PREFIX
from ratchet.events import CATALOGUE
from ratchet.metrics.exposition import gauge, single

TIMEOUT_S = 2.0


class StreamSource:
    """Asks for the streams of all events of the catalogue. ``url`` is called anew after each trouble.

    A slow reading may be told of as away while it goes on, so only the reading itself gives up its client.
    """

    def __init__(self, url: Callable[[], str]):
        self._url = url
        self._client: Redis | None = None

    def read(self) -> list[Metric]:
        """Raises TransientError while Redis is away."""
        client, self._client = self._client or _impatient(self._url()), None
        with redis_trouble():
            names = [name for name in sorted(CATALOGUE) if name and client.exists(PREFIX + name)]
            lengths = [((name,), float(client.xlen(PREFIX + name))) for name in names]
            lags = [((name, group), lag) for name in names for group, lag in self._lags(client, name)]
        self._client = client
        return [
            _up(1.0),
            gauge("ratchet_events_pending", "Events that a system has not read.", ("event", "group"), lags),
            gauge("ratchet_stream_events", "Events kept in the stream.", ("event",), lengths),
        ]

    def away(self) -> list[Metric]:
        return [_up(0.0)]

    @staticmethod
    def _lags(client: Redis, name: str) -> list[tuple[str, float]]:
        """By group; a lag that Redis cannot tell, after a cut, is left out."""
        groups: Any = client.xinfo_groups(PREFIX + name)
        return [(g["name"].decode(), float(g["lag"])) for g in groups if g.get("lag") is not None]


def _impatient(url: str) -> Redis:
    """A client that gives up at once: the next scrape asks again."""
    return Redis.from_url(
        url,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def _up(value: float) -> Metric:
    return single("ratchet_redis_up", "1 if Redis answers.", value)
