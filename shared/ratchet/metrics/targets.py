"""Prometheus targets in the format of its HTTP service discovery, from the workers registered in the ledger."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger import Ledger
from ratchet.ledger.health import LISTED_S, is_expected
from ratchet.ledger.tables import WorkerRow
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings

SERVING = "serving"


def known_pages(settings: Settings) -> dict[str, str]:
    """URLs by name of the other pages that a worker registers: the inference server and exporters."""
    pages = {name: f"http://{address}/metrics" for name, address in settings.metrics.exporters.items()}
    if settings.serving.url is not None:
        pages[SERVING] = f"{settings.serving.url.rstrip('/')}/metrics"
    return pages


def targets(session: Session, now: float) -> list[dict[str, Any]]:
    """One entry for each worker with metrics that was seen within a day and has not reported a stop, and for each of
    its other pages."""
    query = select(WorkerRow).where(
        WorkerRow.metrics_url.is_not(None), is_expected(), WorkerRow.seen_at > now - LISTED_S
    )
    rows = list(session.scalars(query.order_by(WorkerRow.name)))
    own = [_target(row.metrics_url or "", row.system, row.name, row.host) for row in rows]
    return own + [_page(name, url, row.host) for row in rows for name, url in sorted(row.pages.items())]


def server_target(settings: Settings) -> list[dict[str, Any]]:
    """The inference server, if it is known here: by ``serving.url``, or because it runs in this home."""
    url = settings.serving.url or announced_url(settings.serving_home)
    return [] if url is None else [_page(SERVING, f"{url.rstrip('/')}/metrics", "")]


def targets_json(ledger: Ledger, settings: Settings) -> bytes:
    """Each page once, as JSON. Raises TransientError."""
    now = ledger.now()
    with ledger.read() as session:
        found = targets(session, now) + server_target(settings)
    return json.dumps(list({each["targets"][0]: each for each in found}.values()), indent=2).encode()


def _page(name: str, url: str, host: str) -> dict[str, Any]:
    """The entry of a page. The inference server counts as a Ratchet job; an exporter is a job of its own name."""
    if name == SERVING:
        there = urlsplit(url).hostname or ""
        return _target(url, SERVING, f"server@{there}", there)
    page = _target(url, name, f"{name}@{host}", host)
    return page | {"labels": page["labels"] | {"job": name}}


def _target(address: str, system: str, worker: str, host: str) -> dict[str, Any]:
    url = urlsplit(address)
    names = {"system": system, "worker": worker, "host": host}
    return {"targets": [url.netloc], "labels": {"__metrics_path__": url.path, "__scheme__": url.scheme, **names}}
