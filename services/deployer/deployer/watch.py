"""The watch over a new deployment: when do its numbers say roll back? Pure."""

from __future__ import annotations

from ratchet.serving.protocol import Traffic
from ratchet.settings.serving import ServingSettings

FEWEST = 20
"""Requests below which a latency quantile says nothing."""


def alarm(new: Traffic, before: Traffic | None, settings: ServingSettings) -> str | None:
    """Why the deployment should be rolled back, or None. ``before`` is the last champion's traffic."""
    if new.requests and new.errors / new.requests > settings.max_error_rate:
        return f"{new.errors} of {new.requests} requests failed, over the limit of {settings.max_error_rate:.0%}"
    if before is None or before.requests < FEWEST or new.requests < FEWEST:
        return None
    if before.latency_p95_s is None or new.latency_p95_s is None:
        return None
    if new.latency_p95_s > settings.max_latency_ratio * before.latency_p95_s:
        return (
            f"95 % of requests take up to {new.latency_p95_s:.3f} s, {new.latency_p95_s / before.latency_p95_s:.1f} "
            f"times as long as with the last champion (limit {settings.max_latency_ratio:.1f})"
        )
    return None
