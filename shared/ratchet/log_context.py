"""What the present thread is working on, so that every line it logs can say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_TRAIL: ContextVar[dict[str, object]] = ContextVar("ratchet_trail")


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Name the event, subject and claim for the lines logged inside the block; None is left out."""
    token = _TRAIL.set({key: value for key, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _TRAIL.reset(token)


def current_log_context() -> dict[str, object]:
    """The ids named by the innermost block of this thread, or none."""
    return _TRAIL.get({})
