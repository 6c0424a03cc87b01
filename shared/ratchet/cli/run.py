"""`ratchet run`, `stop` and `reset`: start and stop everything on this machine, and remove its data."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from ratchet.cli.output import console, say
from ratchet.cli.screen import ChangeLines, Screen
from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger
from ratchet.run import run_lock
from ratchet.settings import Settings, load
from ratchet.views.reading import read_view
from ratchet.wording import size
from ratchet.worker.stopping import describe_stopping, stopping_workers

STOP_S = 60.0
NAMED_S = 2.0


class LiveView:
    """Shows a run on a screen."""

    def __init__(self, settings: Settings, screen: Screen):
        self._settings, self._screen = settings, screen
        self._changes: ChangeLines | None = None

    def announce(self, text: str) -> None:
        self._screen.announce(f"ratchet: {text}")

    def show(self, ledger: Ledger, heading: str, endpoint: str, page: str) -> None:
        self._changes = self._changes or ChangeLines(ledger)
        hint = f"{page} shows it in a browser · the model answers at {endpoint}/v1 · Ctrl-C stops cleanly"
        self._screen.show(read_view(ledger, self._settings), heading, hint, self._changes)


def run(
    cycles: Annotated[
        int | None,
        typer.Option(min=1, help="End after this many checkpoints were trained, judged and decided on."),
    ] = None,
) -> None:
    """Start everything on this machine and show it: Redis, all systems and the inference server.

    Ctrl-C stops it cleanly; the next `ratchet run` continues where it stopped.
    """
    from ratchet.run.session import Run  # Celery and much else
    from ratchet.run.summary import render

    settings = load()
    with Screen(console()) as screen:
        ended = Run(settings, LiveView(settings, screen), cycles).run()
    text = render(ended.summary, ended.endpoint, settings.serving.alias)
    console().print(f"\n{text}", markup=False)
    if ended.used_up is not None:
        console().print(f"The run ended by itself: all data is used up. {ended.used_up}", markup=False)
    if ended.problem is not None:
        say(f"ratchet: gave up: {ended.problem}", err=True)
        raise typer.Exit(1)


def stop() -> None:
    """Stop this home's run from another terminal, and wait until it has ended."""
    settings = load()
    holder = _named_holder(settings.home)
    if holder is None:
        say("nothing is running.")
        return
    if holder.pid is None:
        path = settings.home.resolve() / run_lock.LOCK_FILE
        raise PreconditionFailed(
            f"a run is active in {settings.home}, but {path} does not name its process: find it with `fuser {path}` or "
            "`lslocks`, and stop it with `kill PID`, which is what this command does."
        )
    _terminate(holder.pid, settings.home)
    began_at, announced = time.time(), ""
    while run_lock.find_run(settings.home) is not None:
        workers = stopping_workers(settings.status_folder)
        who = ", ".join(f"{worker.system} {worker.note}" for worker in workers)
        if workers and who != announced:
            announced = who
            say(describe_stopping(workers))
        if time.time() > max([began_at, *(worker.until for worker in workers)]) + STOP_S:
            raise PreconditionFailed(
                f"{holder} has not stopped in {time.time() - began_at:.0f} s; `kill -9 {holder.pid}` loses only "
                "what was trained since the last checkpoint."
            )
        time.sleep(0.1)
    say("stopped; `ratchet run` continues from here.")


def _named_holder(home: Path) -> run_lock.RunHolder | None:
    """The run of the home. A run that is just starting or ending gets a moment to write its process id or to exit."""
    deadline = time.monotonic() + NAMED_S
    while (holder := run_lock.find_run(home)) is not None and holder.pid is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return holder


def _terminate(pid: int, home: Path) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)  # a suspended process does not see the other
    except PermissionError as error:
        raise PreconditionFailed(
            f"process {pid} runs in {home} and belongs to another user: stop it as that user."
        ) from error
    except ProcessLookupError as error:
        if run_lock.find_run(home) is not None:
            raise PreconditionFailed(
                f"process {pid} runs in {home}, but not on this machine or not in this container: stop it there."
            ) from error


def reset(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False) -> None:
    """Remove the home: ledger, checkpoints, queue, logs. What is in PostgreSQL or S3 stays."""
    settings = load()
    home = settings.home.resolve()
    holder = run_lock.find_run(settings.home)
    if holder is not None:
        raise PreconditionFailed(f"{holder} is running in {home}: run `ratchet stop` first.")
    if not home.exists():
        say(f"there is nothing at {home}.")
        return
    _require_ours(settings)
    used = sum(file.lstat().st_size for file in home.rglob("*") if not file.is_dir())
    if not yes and not typer.confirm(f"remove {home} with all checkpoints and data, {size(used)}?"):
        raise typer.Abort
    with home_errors(home):
        is_gone = _remove(home)
    say(f"removed {home}." if is_gone else f"emptied {home}, which is a mount point and stays.")


def _remove(home: Path) -> bool:
    """Empty and remove the folder; returns whether it is gone. A mount point stays.

    The lock file is removed last: if something cannot be removed, the rest still counts as a home at the next try.
    """
    for entry in home.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != run_lock.LOCK_FILE:
            entry.unlink()
    (home / run_lock.LOCK_FILE).unlink()
    if home.is_mount():
        return False
    home.rmdir()
    return True


def _require_ours(settings: Settings) -> None:
    """Raise unless Ratchet has run in the folder."""
    home = settings.home.resolve()
    if not (home / run_lock.LOCK_FILE).exists():
        raise PreconditionFailed(
            f"{home} does not look like a home of Ratchet (no {run_lock.LOCK_FILE}); remove it by hand."
        )
