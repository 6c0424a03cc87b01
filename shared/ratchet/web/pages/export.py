"""A checkpoint as a folder for other programs, made by `ratchet export` as a job, and its download.

Addresses: ``POST /checkpoints/7/export`` begins it, ``GET /checkpoints/7/export`` shows its state and the folder,
``GET /checkpoints/7/export/download`` is the folder as a .tar, ``POST /checkpoints/7/export/delete`` removes it.
Instead of 7 any name of a checkpoint works. A page links to the second one, which has the button.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import CheckpointRow
from ratchet.settings import Settings
from ratchet.views.checkpoint_names import find_checkpoint
from ratchet.views.topics import Reader
from ratchet.web.jobs import Job, Jobs
from ratchet.web.site import Fields, Page, Query, Site, done, site_of
from ratchet.web.tar_stream import TarStream

KIND = "export"
EXPORTS = "exports"

router = APIRouter()


@dataclass(frozen=True)
class Export:
    """The state of a checkpoint's export. ``job`` is the newest one for it, ``files`` those of the folder."""

    ordinal: int
    folder: Path
    job: Job | None
    files: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.files.values())

    @property
    def is_running(self) -> bool:
        return self.job is not None and self.job.is_running

    @property
    def address(self) -> str:
        return f"/checkpoints/{self.ordinal}/export"


def folder_of(settings: Settings, row: CheckpointRow) -> Path:
    """Where the page's exports of a checkpoint lie."""
    return settings.web_home / EXPORTS / row.id


def state_of(settings: Settings, row: CheckpointRow) -> Export:
    """The export of a checkpoint as it is now; the folder appears at once, when it is complete."""
    job = next((each for each in Jobs(settings.web_home / "jobs").all(KIND) if each.subject == row.id), None)
    folder = folder_of(settings, row)
    try:
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    except FileNotFoundError:
        files = {}  # also while another viewer deletes it
    return Export(row.ordinal, folder, job, files)


def read(reader: Reader, _query: Query, name: str) -> dict[str, Any]:
    row = find_checkpoint(reader.session, name)
    return {"row": row, "export": state_of(reader.settings, row)}


@router.get("/checkpoints/{name}/export")
def show(request: Request, name: str) -> Response:
    site = site_of(request)
    return site.show(request, "export.html", PAGE, lambda reader, query: read(reader, query, name))


@router.get("/checkpoints/{name}/export/state")
def state(request: Request, name: str) -> Response:
    """The part of the page that changes while the job runs, which changes nothing in the ledger."""
    site = site_of(request)
    with site.reading() as reader:
        found = read(reader, {}, name)
    return HTMLResponse(site.templates.get_template("export_state.html").render(**site.frame(PAGE), **found))


@router.post("/checkpoints/{name}/export")
def begin(request: Request, name: str, fields: Fields) -> Response:
    """Start the export and lead to its page; ``ollama`` adds a Modelfile."""
    site = site_of(request)
    site.require_actions()
    row = _row(site, name)
    if row.state != "saved":
        raise PreconditionFailed(f"#{row.ordinal} is {row.state}: {row.reason or 'its files are not usable'}.")
    found = state_of(site.settings, row)
    with home_errors(found.folder.parent):
        found.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    arguments = ["export", str(row.ordinal), "--to", str(found.folder), "--force"]
    arguments += ["--ollama"] if fields.get("ollama") else []
    site.jobs.start(site.settings, KIND, f"export of #{row.ordinal}", arguments, subject=row.id)
    site.feed.poke()
    return Response(status_code=204, headers={"hx-redirect": found.address})


@router.post("/checkpoints/{name}/export/delete")
def delete(request: Request, name: str) -> Response:
    """Remove the folder, which only takes room once it has been downloaded."""
    site = site_of(request)
    site.require_actions()
    row = _row(site, name)
    found = state_of(site.settings, row)
    if found.is_running:
        raise PreconditionFailed(f"#{row.ordinal} is being exported; wait until that has ended.")
    with home_errors(found.folder.parent):
        shutil.rmtree(found.folder, ignore_errors=not found.folder.exists())
    site.feed.poke()
    return done(f"The export of #{row.ordinal} is deleted; the checkpoint is kept.")


@router.get("/checkpoints/{name}/export/download")
def download(request: Request, name: str) -> Response:
    """The folder as a .tar, sent as it is read."""
    site = site_of(request)
    row = _row(site, name)
    archive = TarStream.of(folder_of(site.settings, row))
    headers = {
        "content-length": str(archive.size),
        "content-disposition": f'attachment; filename="{row.id}.tar"',
    }
    return StreamingResponse(archive.chunks(), media_type="application/x-tar", headers=headers)


def _row(site: Site, name: str) -> CheckpointRow:
    with site.reading() as reader:
        row = find_checkpoint(reader.session, name)
        reader.session.expunge(row)
    return row


def _nothing(_reader: Reader, _query: Query) -> dict[str, Any]:
    raise PreconditionFailed("an export is of one checkpoint.")


PAGE = Page("checkpoints", "Export", "/checkpoints", "A checkpoint as a folder for other programs.", _nothing)
