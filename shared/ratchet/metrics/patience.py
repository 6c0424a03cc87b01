"""A collector that never keeps a scrape waiting: what it reads from is away, slow, or fine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Protocol

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ratchet.errors import TransientError

log = logging.getLogger(__name__)

LIMIT_S = 3.0


class Source(Protocol):
    """Something outside this process that families are read from."""

    def read(self) -> list[Metric]:
        """All families, among them the one that says that the source is up. Raises TransientError."""
        ...

    def away(self) -> list[Metric]:
        """What is told while it is away."""
        ...


class PatientCollector(Collector):
    """Reads in a thread of its own, waits ``limit_s`` at most, and lets a reading serve for ``cache_s``.

    A reading that takes longer counts as away, and goes on; no second one is begun beside it.
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
        self._pending = None  # whatever it came to, the next scrape asks again
        try:
            families = pending.result()
        except TransientError as error:
            log.warning("no metrics: %s", error)
            return self._source.away()
        self._kept = (time.monotonic(), families)
        return families
