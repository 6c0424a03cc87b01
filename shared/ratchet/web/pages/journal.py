"""The page Journal: all events in plain words, and of each one what led to it and what it led to."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response

from ratchet.events import CATALOGUE
from ratchet.views.causes import NEAREST, chain, describe_effects, effects, events_of, in_words
from ratchet.views.event_words import WORDS, DescribedEvent
from ratchet.views.journal import JournalFilter, find_event, read_journal, why_missing
from ratchet.views.topics import Reader
from ratchet.web.paging import address_with, begins_before
from ratchet.web.site import Page, Query, site_of

MOST_EFFECTS = 100

router = APIRouter()


def read(reader: Reader, query: Query) -> dict[str, Any]:
    wanted = JournalFilter(
        query.get("name", ""), query.get("about", "").strip(), query.get("text", "").strip(), begins_before(query)
    )
    found = read_journal(reader.session, wanted)
    return {
        "found": found,
        "missing": why_missing(reader.session, reader.settings) if found.older is None else "",
        "wanted": wanted,
        "names": list(CATALOGUE),
        "systems": list(dict.fromkeys(who for who, _ in WORDS.values())),
        "older": address_with(query, before=found.older) if found.older is not None else None,
        "newest": address_with(query, before=None) if wanted.before is not None else None,
        "fields": fields_in_words,
    }


def read_event(reader: Reader, _query: Query, name: str) -> dict[str, Any]:
    """One event. Raises HTTPException for an unknown one."""
    session = reader.session
    row = find_event(session, name)
    if row is None:
        raise HTTPException(
            404,
            f"there is no event {name[:80]!r} in the journal; its newest events are under Journal. "
            + why_missing(session, reader.settings),
        )
    causes = chain(session, row.event_id)
    found = effects(session, row.event_id, MOST_EFFECTS)
    described = in_words(session, causes, found)
    return {
        "event": described[row.event_id],
        "causes": [described[each.event_id] for each in causes[:-1]],
        "goes_on": causes[0].cause if len(causes) == NEAREST else None,
        "effects": describe_effects(found, described),
        "count": sum(1 for _ in events_of(found)),
        "most": MOST_EFFECTS,
        "missing": why_missing(session, reader.settings),
        "raw": json.dumps(json.loads(row.body), indent=2, ensure_ascii=False),
        "fields": fields_in_words,
    }


def fields_in_words(described: DescribedEvent) -> list[tuple[str, str, str]]:
    """Name, value and link of each field; the link is empty where there is none."""
    return [(name, _text(value), _link(name, value)) for name, value in described.fields.items()]


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _link(name: str, value: object) -> str:
    from urllib.parse import quote

    kinds = {"checkpoint_id": "/checkpoints/", "batch_id": "/data/batches/", "task": "/data/tasks/"}
    prefix = next((prefix for end, prefix in kinds.items() if name.endswith(end) or name == end), None)
    if name == "previous_id":
        prefix = "/checkpoints/"
    return prefix + quote(value, safe="") if prefix and isinstance(value, str) and value else ""


@router.get("/journal/{name}")
def show_event(request: Request, name: str) -> Response:
    return site_of(request).show(request, "event.html", PAGE, lambda reader, query: read_event(reader, query, name))


PAGE = Page("journal", "Journal", "/journal", "Every event, with what caused it.", read, router=router)
