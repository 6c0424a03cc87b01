"""Long actions of a viewer, each a call of the command line in a process of its own: adding a file, an export.

A job is a folder with its call, its output and its exit code. It outlives the page's process, and a page that is loaded
again finds it there.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import psutil

from ratchet.atomic_files import atomic_write
from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed
from ratchet.settings import Settings
from ratchet.settings.section import environment
from ratchet.web.job import CALL, EXIT, OUTPUT

KEPT = 50
"""Finished jobs that are kept, the newest."""
MOST_RUNNING = 4
TAIL_BYTES = 64_000


@dataclass(frozen=True)
class Job:
    """A call of the command line. ``exit_code`` is None while it runs, and -1 if it ended without one (a kill).

    ``subject`` is what it works on, such as a checkpoint.
    """

    folder: Path
    kind: str
    title: str
    subject: str | None
    arguments: tuple[str, ...]
    started_at: float
    facts: dict[str, Any]
    exit_code: int | None

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def output(self) -> str:
        """The end of what it has printed."""
        return _tail(self.folder / OUTPUT)

    @property
    def is_running(self) -> bool:
        return self.exit_code is None

    @property
    def has_succeeded(self) -> bool:
        return self.exit_code == 0

    @property
    def state(self) -> str:
        return "running" if self.is_running else "done" if self.has_succeeded else "failed"


class Jobs:
    """The jobs of a home."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._children: list[int] = []
        self._starting = Lock()

    def start(
        self,
        settings: Settings,
        kind: str,
        title: str,
        arguments: Sequence[str],
        facts: dict[str, Any] | None = None,
        subject: str | None = None,
    ) -> str:
        """Start ``ratchet ARGUMENTS`` and return the job's id. ``facts`` are kept with it, for the page of its kind.

        Raises PreconditionFailed while too many are running, or one of the same kind on the same ``subject``.
        """
        with self._starting:
            running = [job for job in self.all() if job.is_running]
            if len(running) >= MOST_RUNNING:
                raise PreconditionFailed(f"{MOST_RUNNING} jobs are running already; wait until one has ended.")
            same = next(
                (job for job in running if subject is not None and (job.kind, job.subject) == (kind, subject)), None
            )
            if same is not None:
                raise PreconditionFailed(f"“{same.title}” is running already; wait until it has ended.")
            return self._start(settings, kind, title, arguments, facts or {}, subject)

    def _start(
        self,
        settings: Settings,
        kind: str,
        title: str,
        arguments: Sequence[str],
        facts: dict[str, Any],
        subject: str | None,
    ) -> str:
        job_id = secrets.token_hex(8)
        folder = self._folder / job_id
        call = {
            "kind": kind,
            "title": title,
            "subject": subject,
            "arguments": list(arguments),
            "facts": facts,
            "at": time.time(),
        }
        with home_errors(self._folder):
            folder.mkdir(parents=True, mode=0o700)
            (folder / OUTPUT).touch(mode=0o600)
            atomic_write(folder / CALL, json.dumps(call), mode=0o600)
        process_id = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "ratchet.web.job", str(folder)],
            {**os.environ, **environment(settings), "COLUMNS": "120", "NO_COLOR": "1"},
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,  # a signal that ends the page must not end what a viewer has begun
        )
        self._children.append(process_id)
        try:
            atomic_write(folder / "pid", str(process_id))
        except Exception:  # without it the job would count as failed while it works
            os.kill(process_id, signal.SIGKILL)
            raise
        self._remove_old()
        return job_id

    def find(self, job_id: str) -> Job | None:
        """The job of that id; None if there is none."""
        return self._read(self._folder / job_id) if job_id.isalnum() else None

    def all(self, kind: str | None = None) -> list[Job]:
        """The jobs that are kept, the newest first."""
        self._children = [each for each in self._children if not _is_reaped(each)]
        if not self._folder.is_dir():
            return []
        found = [job for folder in self._folder.iterdir() if (job := self._read(folder)) is not None]
        return sorted((job for job in found if kind in (None, job.kind)), key=lambda job: -job.started_at)

    def _read(self, folder: Path) -> Job | None:
        """None for a folder without a job, also one that is being removed."""
        try:
            call = json.loads((folder / CALL).read_text(encoding="utf-8"))
            exit_code = _exit_code(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Job(
            folder=folder,
            kind=str(call["kind"]),
            title=str(call["title"]),
            subject=call.get("subject"),
            arguments=tuple(call["arguments"]),
            started_at=float(call["at"]),
            facts=dict(call["facts"]),
            exit_code=exit_code,
        )

    def _remove_old(self) -> None:
        for job in [job for job in self.all() if not job.is_running][KEPT:]:
            shutil.rmtree(self._folder / job.id, ignore_errors=True)


def _is_reaped(process_id: int) -> bool:
    """Whether a child has ended; the system then forgets it."""
    try:
        return os.waitpid(process_id, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _exit_code(folder: Path) -> int | None:
    is_running = _is_running(folder)  # asked first: a job that ends in between has left its exit code before that
    try:
        return int((folder / EXIT).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None if is_running else -1
    except ValueError:
        return -1


def _is_running(folder: Path) -> bool:
    try:
        process = psutil.Process(int((folder / "pid").read_text(encoding="ascii")))
        call = process.cmdline()  # it is empty for a moment while the program is being loaded
        return process.status() != psutil.STATUS_ZOMBIE and (not call or str(folder) in call)
    except (FileNotFoundError, ValueError):
        return time.time() - folder.stat().st_mtime < 5.0  # it is just being started
    except psutil.Error:
        return False


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
