"""A request to a model server, made again while the server is away or overloaded."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from ratchet.errors import TransientError
from ratchet.inference.backoff import Backoff
from ratchet.settings.inference import InferenceSettings

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


def patient_post(
    http: httpx.Client, url: str, body: Mapping[str, object], settings: InferenceSettings
) -> httpx.Response:
    """The server's last word, after as many attempts as are set. Raises TransientError where it gives none."""
    pauses = Backoff(settings.attempts, settings.backoff_s)
    while True:
        try:
            response = http.post(url, json=body)
        except httpx.TransportError as error:
            trouble = f"{type(error).__name__} {error}".strip()
            wished_s = None
        else:
            if response.status_code not in TRANSIENT:
                return response
            trouble = f"status {response.status_code}: {response.text[:200]}"
            wished_s = response.headers.get("retry-after")
        if not pauses.wait(wished_s):
            raise TransientError(f"{url}, after {settings.attempts} attempts: {trouble}")
