"""The targets of Prometheus, in the form of its HTTP discovery: whatever the ledger's register of workers names."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger import Ledger
from ratchet.ledger.tables import Worker
from ratchet.metrics.ledger.control import FORGOTTEN_S


def targets(session: Session, now: float) -> list[dict[str, Any]]:
    """One entry a worker with metrics that did not say that it stopped and was seen today."""
    query = select(Worker).where(
        Worker.metrics_url.is_not(None), Worker.state != "stopped", Worker.seen_at > now - FORGOTTEN_S
    )
    return [_target(row) for row in session.scalars(query.order_by(Worker.name))]


def targets_json(ledger: Ledger) -> bytes:
    """Raises SurroundingsError; Prometheus keeps the targets it has while it is answered by an error."""
    now = ledger.now()
    with ledger.read() as session:
        return json.dumps(targets(session, now), indent=2).encode()


def _target(row: Worker) -> dict[str, Any]:
    url = urlsplit(row.metrics_url or "")
    return {
        "targets": [url.netloc],
        "labels": {
            "__metrics_path__": url.path,
            "__scheme__": url.scheme,
            "system": row.system,
            "worker": row.name,
            "host": row.host,
        },
    }
