"""The targets of Prometheus, in the form of its HTTP discovery: whatever the ledger's register of workers names."""

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
    """URL by name of the pages beside its own that a worker registers: the inference server and exporters."""
    pages = {name: f"http://{address}/metrics" for name, address in settings.metrics.exporters.items()}
    if settings.serving.url is not None:
        pages[SERVING] = f"{settings.serving.url.rstrip('/')}/metrics"
    return pages


def targets(session: Session, now: float) -> list[dict[str, Any]]:
    """One entry a worker with metrics that did not say that it stopped and was seen today, and a page it knows of."""
    query = select(WorkerRow).where(
        WorkerRow.metrics_url.is_not(None), is_expected(), WorkerRow.seen_at > now - LISTED_S
    )
    rows = list(session.scalars(query.order_by(WorkerRow.name)))
    own = [_target(row.metrics_url or "", row.system, row.name, row.host) for row in rows]
    return own + [_page(name, url, row.host) for row in rows for name, url in sorted(row.pages.items())]


def server_target(settings: Settings) -> list[dict[str, Any]]:
    """The inference server, where it is known here: by ``serving.url``, or because it runs below this home."""
    url = settings.serving.url or announced_url(settings.serving_home)
    return [] if url is None else [_page(SERVING, f"{url.rstrip('/')}/metrics", "")]


def targets_json(ledger: Ledger, settings: Settings) -> bytes:
    """Each page once. Raises TransientError; Prometheus keeps its targets while it is answered by an error."""
    now = ledger.now()
    with ledger.read() as session:
        found = targets(session, now) + server_target(settings)
    return json.dumps(list({each["targets"][0]: each for each in found}.values()), indent=2).encode()


def _page(name: str, url: str, host: str) -> dict[str, Any]:
    """The inference server is one of ours; another page is a job of its own."""
    if name == SERVING:
        there = urlsplit(url).hostname or ""
        return _target(url, SERVING, f"server@{there}", there)
    page = _target(url, name, f"{name}@{host}", host)
    return page | {"labels": page["labels"] | {"job": name}}


def _target(address: str, system: str, worker: str, host: str) -> dict[str, Any]:
    url = urlsplit(address)
    names = {"system": system, "worker": worker, "host": host}
    return {"targets": [url.netloc], "labels": {"__metrics_path__": url.path, "__scheme__": url.scheme, **names}}
