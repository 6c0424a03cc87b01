"""The canary: a message through the worker's own Celery queue. Its return proves the way from Redis to the pool."""

from __future__ import annotations

import threading
import time

from celery import Celery
from kombu.exceptions import OperationalError

from ratchet.errors import TransientError

CANARY = "ratchet.canary"


class Canary:
    """Sends canaries, hears them come back, and knows since when none has. While Redis is away, none is owed."""

    def __init__(self, app: Celery, queue: str):
        self._app, self._queue = app, queue
        self._lock = threading.Lock()
        self._waiting_since: float | None = None

        @app.task(name=CANARY)
        def canary() -> None:
            self.excuse()

    def send(self, expires_s: float) -> None:
        """Send one. Raises TransientError while Redis is away."""
        sent_at = time.monotonic()
        try:
            self._app.send_task(CANARY, queue=self._queue, expires=expires_s, retry=False)
        except OperationalError as error:
            self.excuse()
            raise TransientError(f"Redis is away: {error}") from error
        with self._lock:
            self._waiting_since = self._waiting_since or sent_at

    def excuse(self, by_s: float = float("inf")) -> None:
        """Forgive the silence of the last ``by_s`` seconds, for which the worker is not to blame."""
        with self._lock:
            since = self._waiting_since
            self._waiting_since = None if since is None or since + by_s > time.monotonic() else since + by_s

    def silent_s(self) -> float:
        """For how long a canary has been out without any coming back."""
        with self._lock:
            return 0.0 if self._waiting_since is None else time.monotonic() - self._waiting_since
