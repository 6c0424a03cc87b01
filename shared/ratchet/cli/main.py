"""The entry point of the command line: which commands there are, and the options before them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ratchet import __version__
from ratchet.cli.group import Place, lazy_group
from ratchet.errors import SettingsError
from ratchet.files import printable

RUN, LOOK, DATA, STEER, SETUP = "Run", "Look", "Data", "Steer", "Set up"

PLACES = {
    "run": Place("run:run", RUN),
    "stop": Place("run:stop", RUN),
    "reset": Place("run:reset", RUN),
    "serve": Place("serve:serve", RUN),
    "ask": Place("ask:ask", RUN),
    "status": Place("status:status", LOOK),
    "watch": Place("status:watch", LOOK),
    "leaderboard": Place("leaderboard:leaderboard", LOOK),
    "why": Place("why:why", LOOK),
    "history": Place("history:show", LOOK),
    "previews": Place("previews:previews", LOOK),
    "flips": Place("flips:flips", LOOK),
    "calibration": Place("calibration:calibration", LOOK),
    "events": Place("events:events", LOOK),
    "logs": Place("logs:logs", LOOK),
    "systems": Place("systems:systems", LOOK),
    "suite": Place("suite:app", DATA),
    "queue": Place("queue:app", DATA),
    "curriculum": Place("curriculum:curriculum", DATA),
    "coverage": Place("coverage:coverage", DATA),
    "mined": Place("mined:mined", DATA),
    "corrections": Place("corrections:corrections", DATA),
    "dead": Place("dead:app", DATA),
    "deploy": Place("deploying:deploy", STEER),
    "rollback": Place("deploying:rollback", STEER),
    "freeze": Place("deploying:freeze", STEER),
    "unfreeze": Place("deploying:unfreeze", STEER),
    "unblock": Place("deploying:unblock", STEER),
    "fence": Place("fencing:fence", STEER),
    "pause": Place("training:pause", STEER),
    "resume": Place("training:resume", STEER),
    "skip": Place("training:skip", STEER),
    "init": Place("init:init", SETUP),
    "config": Place("config:app", SETUP),
    "doctor": Place("doctor:doctor", SETUP),
    "backup": Place("backup:backup", SETUP),
    "restore": Place("backup:restore", SETUP),
    "migrate": Place("migrate:migrate", SETUP),
    "prepare": Place("prepare:prepare", SETUP),
    "discover": Place("discover:discover", SETUP),
}

app = typer.Typer(
    cls=lazy_group(PLACES),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from ratchet.build import SHARED, package_digest  # reads every file of the package

        typer.echo(f"ratchet {__version__} (build {package_digest(SHARED)})")
        raise typer.Exit


@app.callback()
def main(
    config: Annotated[
        Path | None, typer.Option(help="Settings file; without it ratchet.toml in this folder, if there is one.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder that Ratchet keeps everything in.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One setting, over file and environment."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train a language model around the clock, and only ever serve one that is proved better.

    `ratchet run` starts everything on this machine. `ratchet watch` shows it, `ratchet why CHECKPOINT` explains.
    """
    if config is not None:
        if not os.path.exists(config):  # Path.exists raises for a name that is too long
            raise SettingsError(f"{printable(config)}: no such file; `ratchet init` writes one.")
        os.environ["RATCHET_CONFIG"] = str(config.resolve())
    if home is not None:
        os.environ["RATCHET_HOME"] = str(home)
    if assign:
        from ratchet.settings.settings import schema_with  # half the time of a start, and rarely needed
        from ratchet.settings.sources import assign as put
        from ratchet.settings.sources import section_of

        schema = schema_with([section_of(assignment) for assignment in assign])
        for assignment in assign:
            put(assignment, schema)
