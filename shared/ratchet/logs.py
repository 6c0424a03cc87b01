"""Logs as JSON lines, each with the ids of event, subject and claim that its thread works on.

It imports nothing of Ratchet, since everything may log.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path

LIMIT_BYTES = 16_000_000

_CONTEXT: ContextVar[dict[str, object]] = ContextVar("ratchet_log_context")


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Add ids, such as event, subject and claim, to the lines logged in the block; None is left out."""
    token = _CONTEXT.set({key: value for key, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def current_log_context() -> dict[str, object]:
    """The ids of the innermost block of this thread, or none."""
    return _CONTEXT.get({})


class JsonLines(logging.Formatter):
    """One JSON object per line: at, level, worker, logger, message, and the log context of the thread that logs."""

    def __init__(self, worker: str):
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": round(record.created, 3),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "worker": self._worker,
            "logger": record.name,
            "message": record.getMessage(),
            **current_log_context(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_json(worker: str, folder: Path | None) -> None:
    """Send this process's logs to ``<folder>/<worker>.log``, or to stderr without a folder."""
    if folder is None:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(folder / f"{worker}.log", maxBytes=LIMIT_BYTES, backupCount=1)
    handler.setFormatter(JsonLines(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("celery", "kombu", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", module="celery")  # in a container the process may run as root
