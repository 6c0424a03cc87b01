"""Waiting for the surroundings while something starts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from ratchet.errors import LedgerBehind, TransientError
from ratchet.settings.control import ControlSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


def patiently(
    step: Callable[[], T], settings: ControlSettings, limit_s: float | None = None, for_schema: bool = False
) -> T:
    """Do a step of the start; while the surroundings are away do it again, with back-off.

    ``for_schema``: a ledger that has not been migrated yet is waited for as well. The error that stands when the limit
    is over is raised; without a limit it is waited for ever.
    """
    awaited = (TransientError, LedgerBehind) if for_schema else (TransientError,)
    begun, wait_s = time.monotonic(), settings.backoff_first_s
    while True:
        try:
            return step()
        except awaited as error:
            if limit_s is not None and time.monotonic() - begun + wait_s > limit_s:
                raise
            log.warning("the start waits %.1f s: %s", wait_s, error)
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, settings.backoff_last_s)
