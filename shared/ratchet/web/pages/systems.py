"""The page Systems: each part of the loop with its worker, its work and its failures; one of them with its verdicts
and its logs; dead letters, and the actions on training."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import Response
from sqlalchemy import select

from ratchet.errors import PreconditionFailed
from ratchet.ledger import operator_actions
from ratchet.ledger.ledger import clock
from ratchet.ledger.tables import BatchRow, DeadLetterRow, LineageRow
from ratchet.systems import dead_letters
from ratchet.views import log_lines, system_states
from ratchet.views.presence import read_presence
from ratchet.views.topics import Reader
from ratchet.web.paging import address_with, begins_before
from ratchet.web.site import Fields, Page, Query, Site, done, site_of

OPERATOR = "an operator at the Control Room"
LINES = 200
TRAINING = "training"
LEVELS = {"": "all lines", "info": "info and above", "warning": "warnings and errors", "error": "errors"}
RUNNING = ("running", "waiting", "stopping")

router = APIRouter()


def read(reader: Reader, query: Query) -> dict[str, Any]:
    states = system_states.read_systems(reader.session)
    present = [worker for state in states for worker in state.workers if worker.state in RUNNING]
    return {
        "systems": states,
        "present": len(present),
        "presence": read_presence(reader.session, reader.settings, clock(reader.session)),
        "hosts": sorted({worker.host for worker in present}),
        "addresses": web_addresses(reader.settings.web.links),
        **_letters(reader, query),
    }


def read_one(reader: Reader, query: Query, name: str) -> dict[str, Any]:
    """One system. Raises HTTPException for an unknown one."""
    state = system_states.read_system(reader.session, name)
    if state is None:
        known = ", ".join(each.name for each in system_states.read_systems(reader.session))
        raise HTTPException(404, f"there is no system {name[:80]!r}; there are: {known}.")
    verdicts, older = system_states.newest_verdicts(reader.session, name, begins_before(query))
    paused = reader.session.scalar(select(LineageRow.paused).limit(1)) if name == TRAINING else None
    running = select(BatchRow.id).where(BatchRow.state == "training").limit(1)
    return {
        "system": state,
        "verdicts": verdicts,
        "is_first_page": "before" not in query,
        "older": address_with(query, "verdicts", before=older) if older is not None else None,
        "newest": address_with(query, "verdicts", before=None),
        "paused": paused,
        "batch": reader.session.scalar(running) if name == TRAINING else None,
        "is_training": name == TRAINING,
        "addresses": web_addresses({each: url for worker in state.workers for each, url in worker.pages.items()}),
        **_letters(reader, query, name),
        **_logs(reader, query, name),
    }


def web_addresses(links: dict[str, str]) -> dict[str, str]:
    """Those that a browser may follow."""
    return {name: url for name, url in links.items() if is_web_address(url)}


def is_web_address(url: str | None) -> bool:
    return url is not None and url.startswith(("http://", "https://"))


def _letters(reader: Reader, query: Query, system: str | None = None) -> dict[str, Any]:
    before, resolved_before = begins_before(query, "dead"), begins_before(query, "resolved")
    letters, more = system_states.dead_letters(reader.session, system, before=before)
    resolved, more_resolved = system_states.dead_letters(reader.session, system, is_open=False, before=resolved_before)
    return {
        "dead": letters,
        "dead_count": sum(n for name, n in system_states.count_dead(reader.session).items() if system in (None, name)),
        "dead_older": address_with(query, "dead", dead=more) if more is not None else None,
        "resolved": resolved,
        "resolved_older": address_with(query, "dead", resolved=more_resolved) if more_resolved is not None else None,
        "shows_resolved": resolved_before is not None,
        "with_system": system is None,
    }


def _logs(reader: Reader, query: Query, name: str) -> dict[str, Any]:
    level, text = query.get("level", ""), query.get("text", "")[:200]
    if level not in LEVELS:
        raise PreconditionFailed(f"there is no level {level[:40]!r}; there are: {', '.join(filter(None, LEVELS))}.")
    try:
        files = log_lines.log_files(reader.settings.log_folder, name)
    except PreconditionFailed:
        files = []
    return {
        "log_folder": reader.settings.log_folder,
        "log_files": [file.name for file in files],
        "lines": log_lines.newest(files, LINES, level, text)[::-1],
        "level": level,
        "levels": LEVELS,
        "text": text,
    }


@router.get("/systems/{name}")
def show_system(request: Request, name: str) -> Response:
    """A system's page; it is not cached, since logs change without the ledger."""
    site = site_of(request)
    return site.show(request, "system.html", PAGE, lambda reader, query: read_one(reader, query, name), cached=False)


@router.post("/systems/dead/{number}/retry")
def retry(request: Request, number: str) -> Response:
    """Try the subject of a dead letter again, with its failure count reset."""
    site = site_of(request)
    site.require_actions()
    system = _system_of_letter(site, number)
    with site.writing(system) as tx:
        letter = dead_letters.retry(tx, int(number), OPERATOR)
    return done(f"{letter.system} will try {letter.subject_kind} {letter.subject_id} again.")


def _system_of_letter(site: Site, number: str) -> str:
    with site.reading() as reader:
        letter = reader.session.get(DeadLetterRow, int(number)) if number.isdecimal() and len(number) < 16 else None
    if letter is None:
        raise HTTPException(404, f"there is no dead letter {number[:40]}.")
    return letter.system


@router.post("/systems/training/pause")
def pause(request: Request) -> Response:
    with site_of(request).writing() as tx:
        operator_actions.pause(tx, paused=True)
    return done("Training pauses after its current step. Judging, deployment and serving continue.")


@router.post("/systems/training/resume")
def resume(request: Request) -> Response:
    with site_of(request).writing(TRAINING) as tx:
        operator_actions.pause(tx, paused=False)
    return done("Training continues.")


@router.post("/systems/training/skip")
def skip(request: Request, fields: Fields) -> Response:
    """Skip the batch that is in training, if it still is ``batch``, the one that the page showed."""
    with site_of(request).writing(TRAINING) as tx:
        batch = operator_actions.skip_running(tx)
        if fields.get("batch", batch.id) != batch.id:  # the error takes the change back
            raise PreconditionFailed(f"batch {batch.id[:6]} is in training now, so nothing was done: decide again.")
        told = f"{batch.offset:,} of its {batch.examples:,} examples are in a checkpoint"
    return done(f"Batch {batch.id[:6]} is skipped; {told}.")


PAGE = Page("systems", "Systems", "/systems", "The parts of the loop, and what failed.", read, router=router)
