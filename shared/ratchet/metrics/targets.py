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
from ratchet.serving.home import announced_url
from ratchet.settings import Settings


def targets(session: Session, now: float) -> list[dict[str, Any]]:
    """One entry a worker with metrics that did not say that it stopped and was seen today."""
    query = select(Worker).where(
        Worker.metrics_url.is_not(None), Worker.state != "stopped", Worker.seen_at > now - FORGOTTEN_S
    )
    rows = session.scalars(query.order_by(Worker.name))
    return [_target(row.metrics_url or "", row.system, row.name, row.host) for row in rows]


def server_target(settings: Settings) -> list[dict[str, Any]]:
    """The inference server, where it is known here: by ``serving.url``, or because it runs below this home."""
    url = settings.serving.url or announced_url(settings.serving_home)
    if url is None:
        return []
    host = urlsplit(url).hostname or ""
    return [_target(f"{url.rstrip('/')}/metrics", "serving", f"server@{host}", host)]


def targets_json(ledger: Ledger, settings: Settings) -> bytes:
    """Raises SurroundingsError; Prometheus keeps the targets it has while it is answered by an error."""
    now = ledger.now()
    with ledger.read() as session:
        found = targets(session, now) + server_target(settings)
    return json.dumps(found, indent=2).encode()


def _target(address: str, system: str, worker: str, host: str) -> dict[str, Any]:
    url = urlsplit(address)
    names = {"system": system, "worker": worker, "host": host}
    return {"targets": [url.netloc], "labels": {"__metrics_path__": url.path, "__scheme__": url.scheme, **names}}
