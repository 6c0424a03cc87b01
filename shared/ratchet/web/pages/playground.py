"""The page Playground: the live model and other checkpoints are asked side by side, and an answer becomes an example.

The conversation is kept in the browser; ``/playground?model=7&model=base&ask=3%2B4%3D`` opens it with these models and
that question. How models are asked and loaded is in ratchet.web.answers.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import ImmutableMultiDict
from starlette.exceptions import HTTPException

from ratchet.atomic_files import atomic_write
from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed, RatchetError
from ratchet.file_lock import FileLock
from ratchet.ledger.tables import CheckpointRow, TaskRow
from ratchet.lines import read_lines, to_json_line
from ratchet.settings import Settings
from ratchet.user_tasks.task import all_tasks, require_name
from ratchet.views.checkpoint_names import find_checkpoint
from ratchet.views.reading import read_live
from ratchet.views.topics import Reader
from ratchet.web.answers import LIVE, Answers, ChatRequest
from ratchet.web.jobs import Job, Jobs
from ratchet.web.loaded_models import read_health, server_url, shown
from ratchet.web.site import Fields, Page, Query, Site, site_of

MOST_MODELS = 3
MOST_CHOICES = 200
"""Checkpoints that can be chosen on the page, the newest; any other by its address."""
FEWEST_ROWS = 6
"""A new task begins with: ``plan_rows`` gives each pool a row of its own from here on."""
KIND = "example"
EXAMPLES = "examples"
"""Folder of the files that are added."""
SHOWN_JOBS = 3
ADDED_S = 7 * 86_400.0
"""How long files are kept that have been added."""
DRAFT = "new-task-"
MOST_DRAFTS = 20

_answers: WeakKeyDictionary[Site, Answers] = WeakKeyDictionary()


@dataclass(frozen=True)
class Column:
    """A model of the page. ``key`` is its name in the address; ``ordinal`` that of its checkpoint, if known."""

    key: str
    label: str
    ordinal: int | None


def read(reader: Reader, query: Query) -> dict[str, Any]:
    session, settings = reader.session, reader.settings
    live = read_live(session)
    live_ordinal = None if live is None else live.desired if live.actual is None else live.actual
    columns, problems = _columns(session, _all(query, "model"), live_ordinal)
    kept = select(CheckpointRow.ordinal, CheckpointRow.step).where(CheckpointRow.state == "saved")
    newest = session.execute(kept.order_by(CheckpointRow.ordinal.desc()).limit(MOST_CHOICES)).all()
    choices = {LIVE: _live_label(live_ordinal)} | {column.key: column.label for column in columns}
    choices |= {str(ordinal): _label(ordinal, step) for ordinal, step in newest}
    choices |= {"0": "base"}
    return {
        "columns": columns,
        "problems": problems,
        "choices": choices,
        "most": MOST_MODELS,
        "ask": query.get("ask", ""),
        "tasks": [row.name for row in all_tasks(session, "user")],
        "server": server_url(settings),
        "most_tokens": settings.serving.max_new_tokens,
        **_saved(session, settings),
    }


def _columns(session: Session, names: list[str], live: int | None) -> tuple[list[Column], list[str]]:
    """The models that the address names, each once, and what is wrong with the others."""
    found, problems = dict[str, Column](), list[str]()
    for name in names or [LIVE]:
        if name == LIVE:
            found.setdefault(LIVE, Column(LIVE, _live_label(live), live))
            continue
        try:
            row = find_checkpoint(session, name)
        except PreconditionFailed as error:
            problems.append(str(error))
            continue
        label = _label(row.ordinal, row.step) if row.state == "saved" else f"#{row.ordinal}, {row.state}"
        found.setdefault(str(row.ordinal), Column(str(row.ordinal), label, row.ordinal))
    columns = list(found.values())
    if len(columns) > MOST_MODELS:
        problems.append(f"{MOST_MODELS} models are shown side by side at most.")
    return columns[:MOST_MODELS] or [Column(LIVE, _live_label(live), live)], problems


def _label(ordinal: int, step: int) -> str:
    return "base" if ordinal == 0 else f"#{ordinal}, step {step:,}"


def _live_label(ordinal: int | None) -> str:
    return "live" if ordinal is None else f"live, #{ordinal}"


def _all(query: Query, name: str) -> list[str]:
    """All values of a parameter that may be repeated."""
    if isinstance(query, ImmutableMultiDict):
        return [str(value) for value in query.getlist(name) if value]
    return [query[name]] if query.get(name) else []


router = APIRouter()


def answers_of(site: Site) -> Answers:
    """The connection of this site to the inference server."""
    return _answers.setdefault(site, Answers(site.settings, site.ledger))


@router.post("/playground/answer")
async def answer(request: Request, fields: Fields) -> Response:
    """The answer to ``chat`` (JSON, see ChatRequest), one event a line as it grows."""
    site = site_of(request)
    site.require_actions()
    lines = answers_of(site).lines(ChatRequest.parse(fields.get("chat", "")))
    return StreamingResponse(lines, media_type="application/x-ndjson", headers={"x-accel-buffering": "no"})


@router.get("/playground/server")
async def server(request: Request) -> JSONResponse:
    """What the inference server holds, for the line below the models."""
    settings = site_of(request).settings
    try:
        health = await read_health(settings)
    except RatchetError as error:
        return JSONResponse({"problem": str(error)})
    live = shown(health.live.checkpoint_id) if health.live else None
    loaded = [name for name in dict.fromkeys(map(shown, health.loaded)) if name != live]
    return JSONResponse({"live": live, "loaded": loaded, "waiting": health.waiting, "problem": health.problem})


@router.post("/playground/examples")
def save(request: Request, fields: Fields) -> Response:
    """Add a question with its answer to a task, as ``ratchet data add`` does; rows of a new task wait for more."""
    site = site_of(request)
    site.require_actions()
    question, answer, task = (fields.get(name, "").strip() for name in ("question", "answer", "task"))
    if not question or not answer:
        raise PreconditionFailed("an example has a question and an answer.")
    require_name(task)
    with site.reading() as reader:
        row = reader.session.get(TaskRow, task)
        if row is not None and row.kind != "user":
            raise PreconditionFailed(f"the task {task} belongs to Ratchet; give the example to one of your own.")
        if any(job.is_running and job.subject == task for job in _jobs(site.settings)):
            raise PreconditionFailed(f"examples are being added to {task} just now; save this one in a few seconds.")
        rows = _collected(site.settings, task, to_json_line({"question": question, "answer": answer}), row is None)
        if row is not None or len(rows) >= FEWEST_ROWS:
            _start(site, task, rows)
        if row is not None:
            _draft(site.settings, task).unlink(missing_ok=True)  # only now: what it held is in the rows that are added
        return _rendered(site, reader.session)


def _start(site: Site, task: str, rows: list[str]) -> None:
    file = site.settings.web_home / EXAMPLES / f"rows-{secrets.token_hex(8)}.jsonl"
    atomic_write(file, "".join(f"{line}\n" for line in rows), mode=0o600)
    title = f"{len(rows)} example{'s' if len(rows) > 1 else ''} for {task}"
    facts = {"question": json.loads(rows[-1])["question"][:200]}
    site.jobs.start(site.settings, KIND, title, ["data", "add", str(file), f"--task={task}"], facts, task)
    site.feed.poke()


@router.get("/playground/examples/{job_id}")
def example(request: Request, job_id: str) -> Response:
    """The examples once more, while this one is being added."""
    site = site_of(request)
    job = site.jobs.find(job_id)
    if job is None or job.kind != KIND:
        raise HTTPException(404, "there is no such example any more.")
    with site.reading() as reader:
        return _rendered(site, reader.session)


def _rendered(site: Site, session: Session) -> Response:
    found = _saved(session, site.settings)
    return HTMLResponse(site.templates.get_template("playground_saved.html").render(**found))


def _saved(session: Session, settings: Settings) -> dict[str, Any]:
    """The last examples that were added, and those that wait for more, by the name of their task to be."""
    begun, waiting = {row.name for row in all_tasks(session)}, dict[str, int]()
    for draft in sorted((settings.web_home / EXAMPLES).glob(f"{DRAFT}*.jsonl"))[:MOST_DRAFTS]:
        task = draft.stem.removeprefix(DRAFT)
        if task not in begun:
            waiting[task] = sum(1 for _ in read_lines(draft))
    return {"jobs": _jobs(settings)[:SHOWN_JOBS], "waiting": waiting, "begun": begun, "fewest": FEWEST_ROWS}


def _jobs(settings: Settings) -> list[Job]:
    return Jobs(settings.web_home / "jobs").all(KIND)


def _draft(settings: Settings, task: str) -> Path:
    return settings.web_home / EXAMPLES / f"{DRAFT}{task}.jsonl"


def _collected(settings: Settings, task: str, row: str, is_new: bool) -> list[str]:
    """The rows to add: this one, with those that have been kept for the task until there were enough to begin it."""
    folder = settings.web_home / EXAMPLES
    draft = _draft(settings, task)
    added = any(job.has_succeeded and job.subject == task for job in _jobs(settings))
    with home_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock.acquire(folder / "lock"):
            for old in folder.glob("rows-*.jsonl"):
                if time.time() - old.stat().st_mtime > ADDED_S:
                    old.unlink(missing_ok=True)
            rows = list(read_lines(draft)) if draft.exists() and not added else []
            question = json.loads(row)["question"]
            rows = [each for each in rows if json.loads(each)["question"] != question] + [row]
            if is_new:
                atomic_write(draft, "".join(f"{each}\n" for each in rows), mode=0o600)
    return rows


PAGE = Page(
    "playground",
    "Playground",
    "/playground",
    "Ask the live model and others side by side.",
    read,
    router=router,
    scripts=("playground.js",),
    in_report=False,
)
