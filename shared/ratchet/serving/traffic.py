"""How a loaded checkpoint has done with its clients."""

from __future__ import annotations

import threading
from collections import deque

from ratchet.serving.protocol import Traffic

WINDOW = 1000


class TrafficMeter:
    """Counts requests; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies_s: deque[float] = deque(maxlen=WINDOW)
        self._requests = self._errors = self._tokens = 0

    def answered(self, latency_s: float, tokens: int) -> None:
        with self._lock:
            self._requests += 1
            self._tokens += tokens
            self._latencies_s.append(latency_s)

    def failed(self) -> None:
        with self._lock:
            self._requests += 1
            self._errors += 1

    def read(self) -> Traffic:
        with self._lock:
            ordered = sorted(self._latencies_s)
            return Traffic(
                requests=self._requests,
                errors=self._errors,
                generated_tokens=self._tokens,
                latency_p50_s=_quantile(ordered, 0.5),
                latency_p95_s=_quantile(ordered, 0.95),
            )


def _quantile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank quantile."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
