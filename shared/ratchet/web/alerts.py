"""The alerts that Prometheus is firing, where its address is set. Asked at most every few seconds, for all viewers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from ratchet.proxies import DIRECT

CACHE_S = 10.0
TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Alert:
    """A firing alert, with its summary."""

    name: str
    severity: str
    summary: str


@dataclass(frozen=True)
class Alerts:
    """``problem`` says why they are not known."""

    firing: tuple[Alert, ...] = ()
    problem: str | None = None


_lock = Lock()
_cache: dict[str, tuple[float, Alerts]] = {}


def firing_alerts(url: str | None) -> Alerts:
    """The alerts that fire now; none where there is no Prometheus."""
    if url is None:
        return Alerts()
    with _lock:
        at, found = _cache.get(url, (float("-inf"), Alerts()))
        if time.monotonic() - at > CACHE_S:
            found = _asked(url)
            _cache[url] = (time.monotonic(), found)
        return found


def _asked(url: str) -> Alerts:
    import httpx

    try:
        with httpx.Client(mounts=DIRECT, timeout=TIMEOUT_S) as http:
            response = http.get(f"{url.rstrip('/')}/api/v1/alerts").raise_for_status()
        found: list[Any] = response.json()["data"]["alerts"]
        firing = [alert for alert in found if alert["state"] == "firing"]
        return Alerts(tuple(_alert(alert["labels"], alert.get("annotations", {})) for alert in firing))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
        # Its address may hold a password, and is under Settings.
        return Alerts(problem=f"Prometheus (web.prometheus_url) does not answer ({error or type(error).__name__})")


def _alert(labels: dict[str, str], annotations: dict[str, str]) -> Alert:
    return Alert(labels["alertname"], labels.get("severity", ""), annotations.get("summary", ""))
