"""Celery's consumer, which waits while Redis answers but refuses commands: on a full disk, or at its memory limit.

Celery takes such an answer for an error that no waiting mends, and ends the worker. Here it is an outage like a lost
connection: one line in the log when it begins and one when it is over, and growing pauses between the tries.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer
from celery.worker.state import maybe_shutdown

from ratchet.backoff import Backoff

log = logging.getLogger(__name__)

FIRST_S, LAST_S = 1.0, 15.0
STEP_S = 0.5
"""How often a pause looks whether the worker is to stop."""

_CELERY_LOG = logging.getLogger("celery.worker.consumer.consumer")


class PatientConsumer(Consumer):
    """Takes effect with ``broker_channel_error_retry``, which makes Celery start the consumer again."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._backoff = Backoff(FIRST_S, LAST_S)
        self._is_refused = False
        # Celery's own warning about a setting, which it attributes to whoever calls it.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning, module=__name__)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Called before Celery starts this consumer again, if it has no connection or has given it up."""
        self._handle(exc, super().on_connection_error_before_connected)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Called before Celery starts this consumer again, with its old connection still there."""
        self._handle(exc, super().on_connection_error_after_connected)

    def _handle(self, error: Exception, handle: Callable[[Exception], None]) -> None:
        if isinstance(error, self.connection_errors):
            handle(error)
            return
        if not self._is_refused:
            log.warning("Redis refuses commands: sweeps find the work until it takes them again. %s", error)
            self._is_refused = True
        with _silenced(_CELERY_LOG):
            handle(error)
        self._pause(self._backoff.next_s())

    def loop_args(self) -> Any:
        """Called when it has connected and declared its queues, and begins to take tasks."""
        if self._is_refused:
            log.info("Redis takes commands again")
        self._is_refused = False
        self._backoff.reset()
        return super().loop_args()

    def _pause(self, pause_s: float) -> None:
        """Wait, but not for longer than a stop may take: a signal only sets a flag here."""
        ends_at = time.monotonic() + pause_s
        while (left_s := ends_at - time.monotonic()) > 0:
            maybe_shutdown()
            time.sleep(min(STEP_S, left_s))


@contextmanager
def _silenced(logger: logging.Logger) -> Iterator[None]:
    logger.disabled, before = True, logger.disabled
    try:
        yield
    finally:
        logger.disabled = before
