"""Adding files on the page Data: a file is received, checked as a job, and added as another once a viewer has agreed.

Both jobs are calls of `ratchet data add`, so a file is read, refused and added exactly as on the command line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ratchet.errors import PreconditionFailed
from ratchet.evaluation.record import Metric
from ratchet.ledger.tables import BatchRow
from ratchet.lines import split_lines
from ratchet.settings import Settings
from ratchet.tasks.graders import declared_graders
from ratchet.views.topics import Reader
from ratchet.web.jobs import Job, Jobs
from ratchet.web.site import Fields, Query, Site, site_of
from ratchet.web.uploads import Upload, Uploads

KIND = "data"
SHOWN = 12
"""Files of the last days that the page lists."""
GONE = 499
"""Status for a browser that went away, which nobody sees."""

Step = Literal["check", "add"]
router = APIRouter()

_BATCH = re.compile(r"\b[0-9a-f]{16}\b")


@dataclass(frozen=True)
class Options:
    """What a viewer may say about a file, as options of `ratchet data add`; empty where Ratchet chooses."""

    task: str = ""
    metric: str = ""
    grader: str = ""
    pattern: str = ""
    map: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Options:
        return cls(**{name: str(fields.get(name, "")).strip()[:500].replace("\0", "") for name in cls.__match_args__})

    def arguments(self) -> list[str]:
        """One word each, so that no value is taken for an option."""
        return [f"--{name}={value}" for name, value in asdict(self).items() if value]


@dataclass(frozen=True)
class FileJob:
    """A job that checks or adds a file. ``check`` is the job that was agreed to, ``mended`` the row that was mended."""

    job: Job
    step: Step
    upload: str
    options: Options
    size_bytes: int
    check: str | None
    mended: tuple[str, int] | None

    @classmethod
    def of(cls, job: Job) -> FileJob:
        facts = job.facts
        mended = facts.get("mended")
        return cls(
            job=job,
            step=cast(Step, facts["step"]),
            upload=str(facts["upload"]),
            options=Options.of(facts["options"]),
            size_bytes=int(facts["bytes"]),
            check=facts.get("check"),
            mended=(str(mended[0]), int(mended[1])) if mended else None,
        )

    @property
    def name(self) -> str:
        return self.upload.partition("/")[2]

    @property
    def error(self) -> str:
        """Why it failed, in the words of the command."""
        if self.job.is_running or self.job.has_succeeded:
            return ""
        if self.job.exit_code == -1:
            return (
                "It ended without a result: it was killed, or the machine was restarted. Nothing was added by halves."
            )
        lines = split_lines(self.job.output)
        first = next((place for place, line in enumerate(lines) if line.startswith("ratchet: ")), None)
        return "\n".join(lines[first:]).removeprefix("ratchet: ") if first is not None else "\n".join(lines[-12:])

    @property
    def lines(self) -> str:
        """What the command has said so far, without the record for scripts that an addition ends with."""
        text = self.job.output
        if self.step == "add" and self.job.has_succeeded:
            text = text[: text.rfind("\n{\n") + 1] if not text.startswith("{") else ""
        return text.strip("\n")

    @property
    def result(self) -> dict[str, Any] | None:
        """The numbers of what was added; None before."""
        if self.step != "add" or not self.job.has_succeeded:
            return None
        text = self.job.output
        try:
            found = json.loads(text if text.startswith("{") else text[text.rfind("\n{\n") :])
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@router.post("/data/files")
async def receive(request: Request) -> Response:
    """The body is the file, the parameters are its name and the options. Answers with the address of its job."""
    site = site_of(request)
    site.require_actions()
    query, told = request.query_params, request.headers.get("content-length", "")
    await run_in_threadpool(remove_old, site)
    try:
        expected = int(told) if told.isdecimal() else None
        upload = await uploads(site.settings).receive(request.stream(), query.get("name", ""), expected)
    except ClientDisconnect:
        return Response(status_code=GONE)
    try:
        job = await run_in_threadpool(start, site, upload, "check", Options.of(query))
    except PreconditionFailed:
        uploads(site.settings).remove(upload.key)
        raise
    return JSONResponse({"job": f"/data/jobs/{job}"}, status_code=201)


@router.post("/data/jobs/{job_id}/check")
def check_again(request: Request, job_id: str, fields: Fields) -> Response:
    """Check the same file with other options."""
    site = site_of(request)
    site.require_actions()
    before = _find(site, job_id)
    upload = uploads(site.settings).find(before.upload)
    return _redirect(start(site, upload, "check", Options.of(fields)))


@router.post("/data/jobs/{job_id}/add")
def add_checked(request: Request, job_id: str) -> Response:
    """Add a file that was checked, as it was checked. A second click leads to the same job."""
    site = site_of(request)
    site.require_actions()
    checked = _find(site, job_id)
    if (known := _addition(site.jobs, checked.upload, job_id)) is not None:
        return _redirect(known.job.id)
    if checked.step != "check" or not checked.job.has_succeeded:
        raise PreconditionFailed("only a file whose check has succeeded can be added.")
    upload = uploads(site.settings).find(checked.upload)
    return _redirect(start(site, upload, "add", checked.options, check=job_id))


@router.get("/data/jobs/{job_id}")
def show_job(request: Request, job_id: str) -> Response:
    site = site_of(request)
    found = _find(site, job_id)
    remove_old(site)
    return site.show(request, "data_job.html", site.page("data"), partial(_read_job, site.jobs, found), cached=False)


@router.get("/data/files")
def list_files(request: Request) -> Response:
    """The list of files alone, which asks for itself while one is being read."""
    site = site_of(request)
    template = site.templates.get_template("data_files.html")
    return HTMLResponse(template.render(**site.frame(site.page("data")), files=recent(site.settings)))


def _read_job(jobs: Jobs, file_job: FileJob, reader: Reader, _query: Query) -> dict[str, Any]:
    result = file_job.result
    named = [*(result or {}).get("batch_ids", ()), *_BATCH.findall(file_job.error)]
    batches = [row for name in dict.fromkeys(named) if (row := reader.session.get(BatchRow, name)) is not None]
    return {
        "file_job": file_job,
        "result": result,
        "batches": batches,
        "addition": _addition(jobs, file_job.upload, file_job.job.id) if file_job.step == "check" else None,
        "is_here": (upload_folder(reader.settings) / file_job.upload).is_file(),
        **choices(),
    }


def choices() -> dict[str, Any]:
    """What the options of a file can be."""
    return {"metrics": get_args(Metric), "graders": declared_graders()}


def start(
    site: Site,
    upload: Upload,
    step: Step,
    options: Options,
    *,
    check: str | None = None,
    mended: tuple[str, int] | None = None,
) -> str:
    """Start the job and return its id. Raises PreconditionFailed while too many are running."""
    facts = {
        "step": step,
        "upload": upload.key,
        "options": asdict(options),
        "bytes": upload.size_bytes,
        "check": check,
        "mended": mended,
    }
    how = "--dry-run" if step == "check" else "--json"
    title = f"{'checking' if step == 'check' else 'adding'} {upload.name}"
    arguments = ["data", "add", str(upload.path), how, *options.arguments()]
    job = site.jobs.start(site.settings, KIND, title, arguments, facts)
    site.feed.poke()  # the list of files is on a page that is kept until it changes
    return job


def recent(settings: Settings) -> list[FileJob]:
    """The newest job of each file, the newest file first."""
    newest: dict[str, FileJob] = {}
    for job in Jobs(settings.web_home / "jobs").all(KIND):
        found = FileJob.of(job)
        newest.setdefault(found.upload, found)
    return list(newest.values())[:SHOWN]


def remove_old(site: Site) -> None:
    """Remove files that were added, and those that came over a day ago, unless a job is reading them."""
    store = uploads(site.settings)
    if not store.folder.is_dir() or not any(store.folder.iterdir()):
        return
    jobs = [FileJob.of(job) for job in site.jobs.all(KIND)]
    in_use = {each.upload for each in jobs if each.job.is_running}
    for each in jobs:
        if each.step == "add" and each.job.has_succeeded and each.upload not in in_use:
            store.remove(each.upload)
    store.remove_old(in_use)


def uploads(settings: Settings) -> Uploads:
    return Uploads(upload_folder(settings))


def upload_folder(settings: Settings) -> Path:
    return settings.web_home / "uploads"


def _addition(jobs: Jobs, upload: str, check: str) -> FileJob | None:
    """The job that adds the file as this one has checked it; none that has failed."""
    found = (FileJob.of(job) for job in jobs.all(KIND))
    return next(
        (each for each in found if each.upload == upload and each.check == check and not each.error),
        None,
    )


def _find(site: Site, job_id: str) -> FileJob:
    job = site.jobs.find(job_id)
    if job is None or job.kind != KIND:
        raise HTTPException(404, f"there is no job {job_id[:40]!r}; finished ones are kept for a while only.")
    return FileJob.of(job)


def _redirect(job_id: str) -> Response:
    """Have htmx lead the browser to the job's page."""
    return Response(status_code=204, headers={"hx-redirect": f"/data/jobs/{job_id}"})
