"""`ratchet backup create` and `restore`: ledger and artifacts into a folder, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ratchet import backup as backups
from ratchet.cli.context import artifacts, opened
from ratchet.cli.output import Json, print_json, size
from ratchet.errors import PreconditionFailed
from ratchet.run import run_lock
from ratchet.settings import load

EVERY_S = 5.0

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Copy the ledger and all artifacts into a folder while everything runs, and bring them back.",
)


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(help="Folder for this backup alone, on another disk if you can.")],
    reread: Annotated[
        bool, typer.Option("--reread", help="Also compare the digests of what is in the folder already.")
    ] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Copy the ledger and all artifacts into a folder, while everything runs. A second time only what is new.

    The folder then holds one moment: every artifact that its ledger names is there, verified by digest. The backup
    before stays complete until the end; then what this one does not need is removed.

    Not copied: Redis, caches, logs and metrics, which can be lost, and your settings file and passwords.

    The ledger is copied by its engine's own means, SQLite's online backup or pg_dump, and is restored to that engine.
    """
    with opened() as (settings, ledger):
        made = backups.make(ledger, artifacts(settings), folder, _Progress("copied"), reread=reread)
    if as_json:
        print_json(made.manifest.model_dump(mode="json") | {"copied": made.copied, "removed": made.removed})
        return
    for artifact, said in made.damaged.items():
        typer.echo(f"left out: artifact {artifact}, which the ledger does not need: {said}", err=True)
    manifest = made.manifest
    typer.echo(
        f"{folder}: the ledger with {sum(manifest.ledger.rows.values()):,} rows at {manifest.ledger.revision}, "
        f"{len(manifest.artifacts):,} artifacts, {size(manifest.size_bytes)} in all; "
        f"{made.copied:,} were new ({size(made.copied_bytes)}), {made.removed:,} were removed as no longer needed."
    )
    typer.echo(f"`ratchet backup restore {folder}` brings it back.")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `ratchet backup create` has written.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the ledger that is there.")] = False,
) -> None:
    """Bring ledger and artifacts back from a backup, into an empty place. Stop everything first.

    The settings say where to: this home, or the database and the store that they name. A ledger goes back to the engine
    that it came from. The whole backup is verified before anything is written. One of an older version is migrated;
    one of a version that is not known here is refused.

    With --force a ledger that is there is replaced; an SQLite file is kept beside the new one. After an interruption
    the same command continues.
    """
    settings = load()
    if (holder := run_lock.find_run(settings.home)) is not None:
        raise PreconditionFailed(f"{holder} runs in {settings.home}: `ratchet stop` first.")
    manifest = backups.restore(folder, settings.ledger_url, artifacts(settings), _Progress("restored"), force=force)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.made_at))
    count = len(manifest.artifacts)
    typer.echo(
        f"the ledger and {count:,} artifacts ({size(manifest.size_bytes)}) are as they were at {made}; "
        "training and judging continue from there as soon as the workers run."
    )
    typer.echo(
        "Where an inference server has been running meanwhile, `ratchet deploy reset-fencing` lets it obey this ledger "
        "again; `ratchet doctor` says whether that is needed."
    )


class _Progress:
    """A line at intervals, so that a long copy is seen to advance."""

    def __init__(self, verb: str) -> None:
        self._verb, self._said_at = verb, time.monotonic()

    def __call__(self, done: int, of: int, copied_bytes: int) -> None:
        if time.monotonic() - self._said_at >= EVERY_S:
            self._said_at = time.monotonic()
            typer.echo(f"{done:,} of {of:,} artifacts, {size(copied_bytes)} {self._verb}", err=True)
