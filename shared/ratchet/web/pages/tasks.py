"""A task on the page Data: what it has, what ends when, and how it is judged, which can be changed."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ratchet.home import wake
from ratchet.ledger.tables import TaskRow
from ratchet.user_tasks.change import WOKEN, change_task, in_words, make_choice
from ratchet.user_tasks.task import get_task
from ratchet.views.batches import Filter, count_batches, newest_batches
from ratchet.views.tasks import task_line
from ratchet.views.topics import Reader
from ratchet.web.pages.files import choices
from ratchet.web.site import Fields, Query, Site, done, site_of

BATCHES = 20
router = APIRouter()


@router.get("/data/tasks/{name}")
def show_task(request: Request, name: str) -> Response:
    site = site_of(request)
    return site.show(request, "data_task.html", site.page("data"), partial(_read_task, name))


def _read_task(name: str, reader: Reader, _query: Query) -> dict[str, Any]:
    found = task_line(reader.session, get_task(reader.session, name))
    own = Filter(task=name)
    return {
        "task": found,
        "row": found.row,
        "batches": newest_batches(reader.session, own, BATCHES),
        "count": count_batches(reader.session, own),
        **choices(),
    }


@router.post("/data/tasks/{name}/protect")
def protect(request: Request, name: str, fields: Fields) -> Response:
    """``protected``: yes or no."""
    wanted = fields.get("protected") == "yes"
    row = _change(site_of(request), name, {}, protected=wanted)
    said = "refuses a model that is worse on it" if row.protected else "no longer refuses a model that is worse on it"
    return done(f"The gate {said}.")


@router.post("/data/tasks/{name}/judge")
def judge(request: Request, name: str, fields: Fields) -> Response:
    """Another metric or grader."""
    row = _change(site_of(request), name, fields, protected=None)
    return done(f"Changed: {in_words(row)} The champion and open candidates are tested again.")


def _change(site: Site, name: str, fields: Fields, *, protected: bool | None) -> TaskRow:
    site.require_actions()
    metric, grader, pattern = (fields.get(field, "").strip() or None for field in ("metric", "grader", "pattern"))
    if metric not in (None, "accuracy"):
        grader = None
    if grader not in (None, "regex") or metric not in (None, "accuracy"):
        pattern = None  # the form still holds that of the grader before
    choice = make_choice(None, metric, grader, pattern)
    row = change_task(site.settings, site.ledger, site.artifacts, name, choice, protected)
    wake(site.settings, *WOKEN)
    site.feed.poke()
    return row
