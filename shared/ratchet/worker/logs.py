"""Logs of a worker as JSON lines, each with the ids of event, subject and claim that its thread works on."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from logging.handlers import RotatingFileHandler
from pathlib import Path

from ratchet.log_context import current_log_context

LIMIT_BYTES = 16_000_000


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, worker, logger, message, and the log context of the thread that logs."""

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
    """Send this process's logs to ``<folder>/<worker>.log``, or to stderr where there is no folder."""
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
    warnings.filterwarnings("ignore", module="celery")  # being root is the container's business
