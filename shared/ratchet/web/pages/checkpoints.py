"""The page Checkpoints: every saved model in a ranking with its uncertainty, a heat map by task, and two to compare.

One checkpoint and the comparison of two belong to it; they are in ``checkpoint`` and ``compare``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import exists, select

from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow, EvaluationRow
from ratchet.views.checkpoint_list import SORTS, STATUSES, Filter, ListedCheckpoint, list_checkpoints, measured_tasks
from ratchet.views.heat_map import heat_map
from ratchet.views.reading import SHOWN_POOL, read_checkpoints
from ratchet.views.topics import Reader
from ratchet.web.pages import checkpoint, compare, export
from ratchet.web.paging import paged
from ratchet.web.site import Page, Query, site_of

ROWS = 50
MAP_ROWS = 24
PARAMETERS = ("status", "text", "task", "sort", "order", "page", "rows")
router = APIRouter()
router.include_router(export.router)


def read(reader: Reader, query: Query) -> dict[str, Any]:
    known = {name: query[name] for name in PARAMETERS if query.get(name)}
    sort = known.get("sort", "score")
    wanted = Filter(
        status=known.get("status", ""),
        text=known.get("text", ""),
        task=known.get("task", ""),
        sort=sort,
        descending=known.get("order", _first_order(sort)) != "asc",
    )
    tasks = measured_tasks(reader.session)
    if wanted.task and wanted.task not in tasks:
        raise PreconditionFailed(
            f"no checkpoint is measured on {wanted.task!r}; on: {', '.join(tasks) or 'nothing yet'}."
        )
    page = paged(known, ROWS)
    rows, count = list_checkpoints(reader.session, wanted, page.limit, page.offset)
    headings, measure = {name: _heading(known, wanted, name) for name in SORTS}, _measure(wanted.task, rows)
    if measure["metric"] == "loss" and headings["score"]["sorted"]:
        # The best is first, and of a loss that is the lowest.
        headings["score"]["sorted"] = "ascending" if wanted.descending else "descending"
    many = _map_rows(known.get("rows", ""))
    newest = _newest_measured(reader, many)
    return {
        "rows": rows,
        "paging": page.of(count),
        "wanted": wanted,
        "measure": measure,
        "statuses": STATUSES,
        "tasks": tasks,
        "headings": headings,
        "map": heat_map(read_checkpoints(reader.session, newest), wanted.task),
        "more_rows": "?" + urlencode({**known, "rows": 4 * many}) + "#map" if len(newest) == many else "",
        "has_filter": bool(wanted.status or wanted.text or wanted.task),
    }


def _measure(task: str, rows: Sequence[ListedCheckpoint]) -> dict[str, str]:
    """What the ranking measures: right answers, or the task's own metric."""
    metric = next((row.scores[task].metric for row in rows if task in row.scores), "accuracy")
    captions = {"accuracy": "Right answers", "loss": "Loss of the reference answers", "judge": "Preferred by the judge"}
    units = {"accuracy": "right, %", "loss": "nats per token", "judge": "preferred, %"}
    return {"metric": metric, "unit": units[metric], "caption": captions[metric] + (f", {task}," if task else "")}


def _first_order(sort: str) -> str:
    """The order of a column that is first chosen: the best or the newest first."""
    return "asc" if sort == "loss" else "desc"


def _heading(known: dict[str, str], wanted: Filter, name: str) -> dict[str, str]:
    """The address that sorts by a column (the other way round where it does already), and its ``aria-sort``."""
    others = {key: value for key, value in known.items() if key not in ("page", "sort", "order")}
    if wanted.sort != name:
        return {"address": "?" + urlencode({**others, "sort": name, "order": _first_order(name)}), "sorted": ""}
    order = "asc" if wanted.descending else "desc"
    return {
        "address": "?" + urlencode({**others, "sort": name, "order": order}),
        "sorted": "descending" if wanted.descending else "ascending",
    }


def _map_rows(text: str) -> int:
    return max(MAP_ROWS, min(int(text), 16 * MAP_ROWS)) if text.isdecimal() and len(text) < 6 else MAP_ROWS


def _newest_measured(reader: Reader, limit: int) -> list[CheckpointRow]:
    measured = exists().where(EvaluationRow.checkpoint_id == CheckpointRow.id, EvaluationRow.pool == SHOWN_POOL)
    query = select(CheckpointRow).where(measured).order_by(CheckpointRow.ordinal.desc())
    return list(reader.session.scalars(query.limit(limit)))


@router.get("/checkpoints/compare")
def compare_two(request: Request) -> Response:
    """``a`` is compared with ``b``; of two that were ``pick``ed in the list, the older one is ``a``."""
    picked = request.query_params.getlist("pick")
    if picked:
        return RedirectResponse(compare.address_of(picked), status_code=303)
    return site_of(request).show(request, "compare.html", PAGE, compare.read)


@router.get("/checkpoints/{name}")
def one(request: Request, name: str) -> Response:
    return site_of(request).show(
        request, "checkpoint.html", PAGE, lambda reader, query: checkpoint.read(reader, query, name)
    )


PAGE = Page(
    "checkpoints",
    "Checkpoints",
    "/checkpoints",
    "Every saved model, with what it answers right and what was decided about it.",
    read,
    router=router,
)
