"""`ratchet run`, `stop` and `reset`: everything on this machine, from one command."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Annotated

import typer

from ratchet.cli.output import console, size
from ratchet.cli.view.lines import Teller
from ratchet.cli.view.reading import read_scene
from ratchet.cli.view.screen import Screen
from ratchet.errors import Refused
from ratchet.ledger import Ledger
from ratchet.run import lock
from ratchet.settings import Settings, load

STOP_S = 60.0


class LiveView:
    """Shows a run on a screen."""

    def __init__(self, settings: Settings, screen: Screen):
        self._settings, self._screen = settings, screen
        self._teller: Teller | None = None

    def say(self, text: str) -> None:
        self._screen.say(f"ratchet: {text}")

    def show(self, ledger: Ledger, heading: str, endpoint: str) -> None:
        self._teller = self._teller or Teller(ledger)
        hint = f"Ctrl-C stops cleanly · the model answers at {endpoint}/v1 · `ratchet ask`"
        self._screen.show(read_scene(ledger, self._settings), heading, hint, self._teller)


def run(
    cycles: Annotated[
        int | None,
        typer.Option(min=1, help="End by itself after so many checkpoints were trained, judged and decided on."),
    ] = None,
) -> None:
    """Start everything on this machine and show it: Redis, all systems and the inference server.

    Ctrl-C stops it cleanly; the next `ratchet run` goes on where it stopped.
    """
    from ratchet.run.session import Session  # Celery, and half of everything
    from ratchet.run.summary import render

    settings = load()
    with Screen(console()) as screen:
        ended = Session(settings, LiveView(settings, screen), cycles).run()
    text = render(ended.summary, ended.endpoint, settings.serving.alias)
    console().print(f"\n{text}", markup=False)
    if ended.problem is not None:
        typer.echo(f"ratchet: gave up: {ended.problem}", err=True)
        raise typer.Exit(1)


def stop() -> None:
    """Stop the run of this home, from another terminal, and wait until it has stopped."""
    settings = load()
    pid = lock.holder(settings.home)
    if pid is None:
        typer.echo("nothing is running.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while lock.holder(settings.home) is not None:
        if time.monotonic() > deadline:
            raise Refused(f"process {pid} has not stopped within {STOP_S:.0f} s; `kill -9 {pid}` loses no data.")
        time.sleep(0.1)
    typer.echo("stopped; `ratchet run` goes on from here.")


def reset(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Remove the home: ledger, checkpoints, queue, logs. What is in PostgreSQL or S3 stays."""
    settings = load()
    home = settings.home.resolve()
    pid = lock.holder(settings.home)
    if pid is not None:
        raise Refused(f"process {pid} is running in {home}: `ratchet stop` first.")
    if not home.exists():
        typer.echo(f"there is nothing at {home}.")
        return
    _require_ours(settings)
    used = sum(file.lstat().st_size for file in home.rglob("*") if not file.is_dir())
    if not yes and not typer.confirm(f"remove {home} with all checkpoints and data, {size(used)}?"):
        raise typer.Abort
    shutil.rmtree(home)
    typer.echo(f"removed {home}.")


def _require_ours(settings: Settings) -> None:
    """A folder is removed only if Ratchet has run there."""
    home = settings.home.resolve()
    if not (home / lock.NAME).exists():
        raise Refused(f"{home} does not look like a home of Ratchet (no {lock.NAME}); remove it by hand.")
