"""`ratchet backup create` and `restore`: ledger and artifacts into a folder, and back."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from ratchet import backup as backups
from ratchet.cli.output import Json, print_json, say
from ratchet.disk import keep_private
from ratchet.errors import PreconditionFailed
from ratchet.home import artifacts, opened
from ratchet.run import run_lock
from ratchet.settings import load
from ratchet.wording import size

EVERY_S = 5.0

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Copy the ledger and all artifacts into a folder while everything runs, and restore them.",
)


@app.command()
def create(
    folder: Annotated[Path, typer.Argument(help="Folder for this backup alone, on another disk if you can.")],
    reread: Annotated[
        bool, typer.Option("--reread", help="Also verify the digests of the files that are in the folder already.")
    ] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Copy the ledger and all artifacts into a folder, while everything runs. Later backups copy only what is new.

    The backup is consistent: every artifact that its ledger names is in the folder, verified by digest. The previous
    backup stays complete until this one is; only then are files removed that this one does not need.

    Not copied: Redis, caches, logs and metrics, which may be lost, and your settings file and passwords.

    The ledger is copied with its engine's own tool, SQLite's online backup or pg_dump, and is restored to that engine.
    """
    with opened() as (settings, ledger):
        made = backups.make(ledger, artifacts(settings), folder, _Progress("copied"), reread=reread)
    if as_json:
        print_json(made.manifest.model_dump(mode="json") | {"copied": made.copied, "removed": made.removed})
        return
    for artifact, error in made.damaged.items():
        say(f"left out: artifact {artifact}, which the ledger does not need: {error}", err=True)
    manifest = made.manifest
    say(
        f"{folder}: the ledger with {sum(manifest.ledger.rows.values()):,} rows at {manifest.ledger.revision}, "
        f"{len(manifest.artifacts):,} artifacts, {size(manifest.size_bytes)} in all; "
        f"{made.copied:,} were new ({size(made.copied_bytes)}), {made.removed:,} were removed as no longer needed."
    )
    say(f"`ratchet backup restore {folder}` restores it.")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="Folder that `ratchet backup create` has written.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing ledger.")] = False,
) -> None:
    """Restore the ledger and the artifacts from a backup. Stop everything first.

    They are restored to the home, database and artifact store that the settings name, where there must be no ledger
    yet. The engine must be the one that the ledger came from. The whole backup is verified before anything is written.
    A backup of an older version is migrated; one of an unknown version is refused.

    With --force an existing ledger is replaced; an SQLite file is kept beside the new one. An interrupted restore
    continues when the command is run again.
    """
    settings = load()
    if (holder := run_lock.find_run(settings.home)) is not None:
        raise PreconditionFailed(f"{holder} is running in {settings.home}: run `ratchet stop` first.")
    keep_private(settings.home)
    manifest = backups.restore(folder, settings.ledger_url, artifacts(settings), _Progress("restored"), force=force)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(manifest.made_at))
    count = len(manifest.artifacts)
    say(
        f"the ledger and {count:,} artifacts ({size(manifest.size_bytes)}) are as they were at {made}; "
        "training and judging continue from there as soon as the workers run."
    )
    say(
        "If an inference server kept running, it may reject fencing tokens of this ledger: `ratchet doctor` shows "
        "whether `ratchet deploy reset-fencing` is needed."
    )


class _Progress:
    """Prints a line every few seconds, so that the progress of a long copy can be followed."""

    def __init__(self, verb: str) -> None:
        self._verb, self._printed_at = verb, time.monotonic()

    def __call__(self, done: int, of: int, copied_bytes: int) -> None:
        if time.monotonic() - self._printed_at >= EVERY_S:
            self._printed_at = time.monotonic()
            say(f"{done:,} of {of:,} artifacts, {size(copied_bytes)} {self._verb}", err=True)
