"""A request to a model server, made again while the server is away or overloaded."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from ratchet.backoff import Backoff
from ratchet.errors import TransientError
from ratchet.settings.inference import InferenceSettings

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_PAUSE_S = 30.0


def patient_post(
    http: httpx.Client, url: str, body: Mapping[str, object], settings: InferenceSettings
) -> httpx.Response:
    """The server's last word, after as many attempts as are set. Raises TransientError where it gives none."""
    backoff = Backoff(settings.backoff_s, LONGEST_PAUSE_S, jitter=0.5)
    while True:
        try:
            response = http.post(url, json=body)
        except httpx.TransportError as error:
            trouble = f"{type(error).__name__} {error}".strip()
            retry_after = None
        else:
            if response.status_code not in TRANSIENT:
                return response
            trouble = f"status {response.status_code}: {response.text[:200]}"
            retry_after = response.headers.get("retry-after")
        if backoff.failures + 1 >= settings.attempts:
            raise TransientError(f"{url}, after {settings.attempts} attempts: {trouble}")
        backoff.wait(at_least_s=_seconds(retry_after))


def _seconds(retry_after: str | None) -> float:
    """A Retry-After in seconds, at most the longest pause; one that is a date counts as absent."""
    try:
        return min(max(float(retry_after or 0), 0.0), LONGEST_PAUSE_S)
    except ValueError:
        return 0.0
