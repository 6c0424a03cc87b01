"""The ledger and Redis as sources of metrics, and a collector that reads them without blocking a scrape.

A source that is unavailable or slow is reported as down, and the rest of the page is served.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.orm import Session

from ratchet.bus.connection import redis_errors
from ratchet.bus.streams import PREFIX
from ratchet.errors import TransientError
from ratchet.events import CATALOGUE
from ratchet.ledger import Ledger
from ratchet.ledger.changes import fingerprint
from ratchet.metrics.families import gauge, single
from ratchet.metrics.ledger_backlog import Waiting, claims, control, find_waiting, pending
from ratchet.metrics.ledger_state import judging, learning, lineage, queue, serving, tasks
from ratchet.settings import Settings

log = logging.getLogger(__name__)

LIMIT_S = 3.0
"""Prometheus gives up a scrape after 10 s, so one slow source must take much less."""

CACHE_S = 5.0
"""Several Prometheus servers or people then cost a single reading of the ledger."""

REDIS_TIMEOUT_S = 2.0


class Source(Protocol):
    """A store outside this process that metric families are read from."""

    def read(self) -> list[Metric]:
        """All families, including the one that reports the source as up. Raises TransientError."""
        ...

    def away(self) -> list[Metric]:
        """The families to export while the source cannot be read."""
        ...


class TimeLimitedCollector(Collector):
    """Reads in its own thread, waits at most ``limit_s``, and serves each reading for ``cache_s``.

    If a reading takes longer, the source counts as unavailable. That reading continues, and no second one is started.
    """

    def __init__(self, source: Source, cache_s: float = 0.0, limit_s: float = LIMIT_S):
        self._source, self._cache_s, self._limit_s = source, cache_s, limit_s
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._lock = Lock()
        self._pending: Future[list[Metric]] | None = None
        self._kept: tuple[float, list[Metric]] = (float("-inf"), [])

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            read_at, families = self._kept
            if not families or time.monotonic() - read_at >= self._cache_s:
                families = self._fresh()
        yield from families

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _fresh(self) -> list[Metric]:
        pending = self._pending = self._pending or self._reader.submit(self._source.read)
        wait([pending], self._limit_s)
        if not pending.done():
            log.warning("%s takes longer than %.0f s", type(self._source).__name__, self._limit_s)
            return self._source.away()
        self._pending = None  # also after an error: otherwise each later scrape would raise it again
        try:
            families = pending.result()
        except TransientError as error:
            log.warning("no metrics: %s", error)
            return self._source.away()
        self._kept = (time.monotonic(), families)
        return families


Read = Callable[[Session, float, Settings], Iterator[Metric]]
SETTLED: tuple[Read, ...] = (queue, tasks, lineage, learning, judging)
"""They read whole histories, and their values change with the ledger alone."""
CURRENT: tuple[Read, ...] = (claims, serving, control)
"""Their values change with time or with heartbeats too."""

KEPT_S = 60.0
"""How long the settled values are served at most while the ledger does not change."""


@dataclass(frozen=True)
class SettledState:
    """What was read of a ledger with this fingerprint."""

    fingerprint: tuple[Any, ...]
    read_at: float
    families: list[Metric]
    waiting: list[Waiting]


class LedgerSource:
    """Metrics of the ledger, from about thirty indexed, read-only queries; from a few while it does not change."""

    def __init__(self, ledger: Ledger, settings: Settings):
        self._ledger, self._settings = ledger, settings
        self._kept: SettledState | None = None

    def read(self) -> list[Metric]:
        """Raises TransientError while the ledger is away."""
        began_at = time.monotonic()
        now = self._ledger.now()
        with self._ledger.read() as session:
            settled = self._kept = self._settled(session, now)
            found = [family for read in CURRENT for family in read(session, now, self._settings)]
        took = single("ratchet_ledger_read_seconds", "Duration of this reading.", time.monotonic() - began_at)
        return [_ledger_up(1.0), took, *settled.families, *pending(settled.waiting, now), *found]

    def _settled(self, session: Session, now: float) -> SettledState:
        found, at = fingerprint(session), time.monotonic()
        if self._kept and self._kept.fingerprint == found and at - self._kept.read_at < KEPT_S:
            return self._kept
        families = [family for read in SETTLED for family in read(session, now, self._settings)]
        return SettledState(found, at, families, find_waiting(session))

    def away(self) -> list[Metric]:
        return [_ledger_up(0.0)]


def _ledger_up(value: float) -> Metric:
    return single("ratchet_ledger_up", "1 if the ledger answers.", value)


class StreamSource:
    """Reads the streams of all events of the catalogue. ``url`` is called again after each failure.

    A slow reading may count as unavailable while it still runs, so only the reading itself closes its client.
    """

    def __init__(self, url: Callable[[], str]):
        self._url = url
        self._client: Redis | None = None

    def read(self) -> list[Metric]:
        """Raises TransientError while Redis is away."""
        client, self._client = self._client or _failing_fast(self._url()), None
        with redis_errors():
            names = [name for name in sorted(CATALOGUE) if name and client.exists(PREFIX + name)]
            lengths = [((name,), float(client.xlen(PREFIX + name))) for name in names]
            lags = [((name, group), lag) for name in names for group, lag in self._lags(client, name)]
        self._client = client
        return [
            _redis_up(1.0),
            gauge("ratchet_events_pending", "Events that a system has not read.", ("event", "group"), lags),
            gauge("ratchet_stream_events", "Events in the stream.", ("event",), lengths),
        ]

    def away(self) -> list[Metric]:
        return [_redis_up(0.0)]

    @staticmethod
    def _lags(client: Redis, name: str) -> list[tuple[str, float]]:
        """Lag by group, without those that Redis does not know after a stream was trimmed."""
        groups: Any = client.xinfo_groups(PREFIX + name)
        return [(g["name"].decode(), float(g["lag"])) for g in groups if g.get("lag") is not None]


def _failing_fast(url: str) -> Redis:
    """A client without retries: the next scrape is the retry."""
    return Redis.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


def _redis_up(value: float) -> Metric:
    return single("ratchet_redis_up", "1 if Redis answers.", value)
