"""What the present thread works on, for every line that it logs. Imported by logging, so it knows nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CONTEXT: ContextVar[dict[str, object]] = ContextVar("ratchet_log_context")


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Add ids, as of event, subject and claim, to the lines logged inside the block; None is left out."""
    token = _CONTEXT.set({key: value for key, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def current_log_context() -> dict[str, object]:
    """The ids of the innermost block of this thread, or none."""
    return _CONTEXT.get({})
