"""The page Mistakes: what a checkpoint gets wrong, the lessons that were made of it, and whether they helped."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from ratchet.errors import ArtifactError, PreconditionFailed
from ratchet.home import artifacts
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.tables import BatchRow
from ratchet.views.mistakes import KINDS, MinedSet, find_set, lessons, read_items, sets_page
from ratchet.views.topics import Reader
from ratchet.web.paging import address_with, begins_before, paged
from ratchet.web.site import Page, Query

ITEMS = 20
SETS = 12
LESSONS = 8


def read(reader: Reader, query: Query) -> dict[str, Any]:
    session = reader.session
    chosen = find_set(session, query.get("checkpoint", "").strip())
    sets, older = sets_page(session, SETS, begins_before(query))
    lesson_pages = paged(query, LESSONS, "lessons")
    count = session.scalar(select(func.count()).select_from(BatchRow).where(BatchRow.origin == "correction")) or 0
    return {
        "chosen": chosen,
        "meanings": KINDS,
        "sets": sets,
        "older": address_with(query, "sets", before=older) if older is not None else None,
        "lessons": lessons(session, lesson_pages.limit, lesson_pages.offset),
        "lesson_paging": lesson_pages.of(count),
        "backed_off": classes_in_backoff(session),
        **_items(reader, query, chosen),
    }


def _items(reader: Reader, query: Query, chosen: MinedSet | None) -> dict[str, Any]:
    kind, pages = query.get("kind", ""), paged(query, ITEMS, "items")
    if kind and kind not in KINDS:
        raise PreconditionFailed(f"no weak item is {kind[:40]!r}; there are: {', '.join(KINDS)}.")
    frame = {
        "kind": kind,
        "all_kinds": "/mistakes" + address_with(query, "items", kind=None, items=None),
        "kind_addresses": {
            name: "/mistakes" + address_with(query, "items", kind=name, items=None) for name, _ in chosen.kinds
        }
        if chosen is not None
        else {},
        "problem": "",
    }
    try:
        found = read_items(artifacts(reader.settings), chosen.row, kind) if chosen is not None else []
    except ArtifactError as error:
        return {**frame, "items": [], "item_paging": pages.of(0), "problem": str(error)}
    return {**frame, "items": found[pages.offset : pages.offset + pages.limit], "item_paging": pages.of(len(found))}


PAGE = Page("mistakes", "Mistakes", "/mistakes", "What the model gets wrong, and whether lessons helped.", read)
