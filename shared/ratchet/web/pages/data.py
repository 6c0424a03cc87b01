"""The page Data: tasks, supply, batches, rows in quarantine, coverage, and files to be added."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from ratchet.errors import PreconditionFailed
from ratchet.ledger.queue import depth, low_mark, shortage, supply
from ratchet.views.batches import ORIGINS, STATES, Filter, count_batches, newest_batches
from ratchet.views.coverage import coverage_map
from ratchet.views.quarantine import REASONS, quarantined_total
from ratchet.views.tasks import task_lines
from ratchet.views.topics import Reader
from ratchet.web.pages import batches, files, tasks
from ratchet.web.paging import paged
from ratchet.web.site import Page, Query

BATCHES = 50
QUARANTINES = 10
"""Batches with rows in quarantine that are shown at once."""


def read(reader: Reader, query: Query) -> dict[str, Any]:
    session, settings = reader.session, reader.settings
    wanted = _filter(query)
    pages, refused_pages = paged(query, BATCHES, "batches"), paged(query, QUARANTINES, "quarantine")
    refused_rows, refused_batches = quarantined_total(session)
    refused = (
        newest_batches(session, Filter(in_quarantine=True), refused_pages.limit, refused_pages.offset)
        if refused_batches
        else []
    )
    left, low = supply(session), low_mark(settings)
    store = files.uploads(settings)
    return {
        "tasks": task_lines(session),
        "left": left,
        "waiting": depth(session),
        "low": low,
        "high": settings.queue.high_water,
        "shortage": shortage(left, low) if low else None,
        "wanted": wanted,
        "batches": newest_batches(session, wanted, pages.limit, pages.offset),
        "paging": pages.of(count_batches(session, wanted)),
        "states": STATES,
        "origins": ORIGINS,
        "refused": refused,
        "refused_rows": refused_rows,
        "refused_paging": refused_pages.of(refused_batches),
        "meanings": REASONS,
        "map": coverage_map(reader),
        "files": files.recent(settings),
        "most_bytes": store.most_bytes(),
        "options": files.Options.of(query),
        **files.choices(),
    }


def _filter(query: Query) -> Filter:
    """Raises PreconditionFailed for a state or an origin that no batch can have."""
    found = Filter(query.get("state", ""), query.get("origin", ""), query.get("task", ""))
    for name, value, known in (("state", found.state, STATES), ("origin", found.origin, ORIGINS)):
        if value and value not in known:
            raise PreconditionFailed(f"no batch has the {name} {value[:40]!r}; there are: {', '.join(known)}.")
    return found


router = APIRouter()
for part in (batches, files, tasks):
    router.include_router(part.router)

PAGE = Page(
    "data",
    "Data",
    "/data",
    "What the model learns from: your tasks, generated batches, and rows that were refused.",
    read,
    router=router,
    scripts=("data.js",),
)
