"""A batch on the page Data: where it came from and what became of it; its rows in quarantine, which can be mended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from ratchet.data.example import Example, Message
from ratchet.errors import DataError, PreconditionFailed
from ratchet.ledger import operator_actions
from ratchet.ledger.tables import BatchRow
from ratchet.lines import split_lines
from ratchet.views.batches import OPEN, batch_history, find_batch, priority
from ratchet.views.coverage import BatchCoverage, cells_table
from ratchet.views.quarantine import (
    FILE,
    REASONS,
    QuarantinedRow,
    quarantine_file,
    quarantined_row,
    quarantined_rows,
    task_of,
)
from ratchet.views.topics import Reader
from ratchet.web.pages import files
from ratchet.web.paging import paged
from ratchet.web.site import Fields, Query, Site, done, site_of

ROWS = 50
MOST_LINE = 2**53
PIECE_BYTES = 1 << 18
EMPTY = Example.ask("", "", family="", level=1)
router = APIRouter()


@router.get("/data/batches/{name}")
def show_batch(request: Request, name: str) -> Response:
    site = site_of(request)
    return site.show(request, "data_batch.html", site.page("data"), partial(_read_batch, name))


def _read_batch(name: str, reader: Reader, _query: Query) -> dict[str, Any]:
    history = batch_history(reader.session, find_batch(reader.session, name))
    coverage = history.coverage
    return {
        "history": history,
        "row": history.row,
        "priority": priority(history.row),
        "can_skip": history.row.state in OPEN,
        "covered": BatchCoverage(coverage, history.row.origin) if coverage is not None else None,
        "cells": cells_table(coverage) if coverage is not None else None,
        "reasons": REASONS,
    }


@router.post("/data/batches/{name}/skip")
def skip(request: Request, name: str) -> Response:
    with site_of(request).writing("training") as tx:
        row = find_batch(tx.session, name)
        operator_actions.skip(tx, row)
    return done(f"Batch {row.id[:6]} is skipped: it is kept, and not trained on any more.")


@router.get("/data/batches/{name}/quarantine")
def show_quarantine(request: Request, name: str) -> Response:
    site = site_of(request)
    return site.show(request, "data_quarantine.html", site.page("data"), partial(_read_rows, site, name))


def _read_rows(site: Site, name: str, reader: Reader, query: Query) -> dict[str, Any]:
    batch, paging, reason = find_batch(reader.session, name), paged(query, ROWS), query.get("reason", "")
    reasons: Mapping[str, int] = batch.report.get("reasons", {})
    if reason and reason not in reasons:
        raise PreconditionFailed(f"no row of batch {batch.id} was refused for the reason {reason[:40]!r}.")
    file = quarantine_file(site.artifacts, batch)
    return {
        "row": batch,
        "reason": reason,
        "counts": reasons,
        "meanings": REASONS,
        "rows": quarantined_rows(file, reason, paging.offset, paging.limit),
        "paging": paging.of(reasons[reason] if reason else batch.quarantined),
    }


@router.get("/data/batches/{name}/quarantine.jsonl")
def download(request: Request, name: str) -> Response:
    """The rows as the data gate has kept them, a JSON object a line."""
    site = site_of(request)
    with site.reading() as reader:
        batch = find_batch(reader.session, name)
        file = quarantine_file(site.artifacts, batch)

    def pieces() -> Iterator[bytes]:
        with open(file, "rb") as rows:
            while piece := rows.read(PIECE_BYTES):
                yield piece

    shown = f"{batch.id[:6]}-{FILE}"
    return StreamingResponse(
        pieces(),
        media_type="application/x-ndjson",
        headers={"content-disposition": f'attachment; filename="{shown}"', "content-length": str(file.stat().st_size)},
    )


@router.get("/data/batches/{name}/quarantine/{line}")
def show_row(request: Request, name: str, line: int) -> Response:
    site = site_of(request)
    return site.show(request, "data_row.html", site.page("data"), partial(_read_row, site, name, line))


def _read_row(site: Site, name: str, line: int, reader: Reader, _query: Query) -> dict[str, Any]:
    batch = find_batch(reader.session, name)
    refused = _refused_row(site, batch, line)
    task = task_of(reader.session, batch, refused)
    return {
        "row": batch,
        "refused": refused,
        "meaning": REASONS.get(refused.reason, refused.reason),
        "task": task,
        "is_plain": is_plain(refused.example, task),
        "text": pretty(refused.example or EMPTY),
    }


@router.post("/data/batches/{name}/quarantine/{line}")
def send_again(request: Request, name: str, line: int, fields: Fields) -> Response:
    """Add the mended row as a file of one row, to the task that it belongs to."""
    site = site_of(request)
    site.require_actions()
    with site.reading() as reader:
        batch = find_batch(reader.session, name)
        refused = _refused_row(site, batch, line)
        task = task_of(reader.session, batch, refused)
    example = mended(refused, fields)
    files.remove_old(site)
    upload = files.uploads(site.settings).write(example.to_line() + "\n", f"mended-{batch.id[:6]}-line-{line}.jsonl")
    options = files.Options(task=task or "")
    try:
        job = files.start(site, upload, "add", options, mended=(batch.id, line))
    except PreconditionFailed:
        files.uploads(site.settings).remove(upload.key)
        raise
    return Response(status_code=204, headers={"hx-redirect": f"/data/jobs/{job}"})


def _refused_row(site: Site, batch: BatchRow, line: int) -> QuarantinedRow:
    if not 0 <= line < MOST_LINE:
        raise PreconditionFailed("there is no such line.")
    return quarantined_row(quarantine_file(site.artifacts, batch), line)


def is_plain(example: Example | None, task: str | None) -> bool:
    """Whether a question and an answer, perhaps with a system turn, are all there is to mend. A row that could not be
    read, and of which no task is known, has to name its family too."""
    if example is None:
        return task is not None
    roles = [message.role for message in example.messages if message.role != "system"]
    has_calls = any(message.tool_calls or message.train is not None for message in example.messages)
    return roles in (["user"], ["user", "assistant"]) and not has_calls


def pretty(example: Example) -> str:
    return json.dumps(json.loads(example.to_line()), ensure_ascii=False, indent=2)


def mended(refused: QuarantinedRow, fields: Mapping[str, str]) -> Example:
    """The row with what the viewer has changed. Raises PreconditionFailed for one that is no example."""
    if "json" in fields:
        try:
            return Example.model_validate_json(fields["json"])
        except ValueError as error:
            said = "; ".join(split_lines(str(error))[1:3]).strip() or str(error)
            raise PreconditionFailed(
                f"this is no row: {said}. It needs the keys messages (each with role and content) and metadata."
            ) from error
    question, answer = (fields.get(name, "").replace("\r\n", "\n") for name in ("question", "answer"))
    if not question.strip() or not answer.strip():
        raise PreconditionFailed("a row needs a question and an answer.")
    example = refused.example
    turns = [message for message in example.messages if message.role == "system"] if example is not None else []
    turns += [Message(role="user", content=question), Message(role="assistant", content=answer)]
    metadata = dict(example.metadata) if example is not None else {}
    if "gold" in fields:
        metadata["gold"] = fields["gold"]
    try:
        return Example(messages=tuple(turns), metadata=metadata)
    except (ValueError, DataError) as error:
        raise PreconditionFailed(f"this is no row: {error}") from error
