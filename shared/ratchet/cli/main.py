"""The entry point of the command line: which commands there are, and the options that go before them.

A command's module is imported when the command is called: help and completion of a name import none of them. Errors of
Ratchet's own become one line and exit code 2. So do those of a disk: it may be full or read-only under any command.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from ratchet import __version__
from ratchet.errors import RatchetError, SettingsError

EXIT_ERROR = 2
RUN, LOOK, ACT, SETUP = "Run", "Look", "Act", "Set up"


class Command(NamedTuple):
    """Where a command is (``module:attribute`` below ratchet.cli), its heading in the help, and what it does."""

    target: str
    heading: str
    summary: str


COMMANDS = {
    "run": Command(
        "run:run", RUN, "Start everything on this machine and show it: Redis, all systems and the inference server."
    ),
    "stop": Command("run:stop", RUN, "Stop the run of this home, from another terminal, and wait for its end."),
    "reset": Command(
        "run:reset", RUN, "Remove the home: ledger, checkpoints, queue, logs. What is in PostgreSQL or S3 stays."
    ),
    "serve": Command("serve:serve", RUN, "Run the inference server by itself, with the engine of serving.engine."),
    "ask": Command("serve:ask", RUN, "Ask the served model, and say which checkpoint answered."),
    "status": Command(
        "status:status", LOOK, "Show what is going on right now: queue, training, checkpoints, what is live and why."
    ),
    "watch": Command("status:watch", LOOK, "Show it live. Ctrl-C leaves the run alone."),
    "show": Command("show:app", LOOK, "Show one thing as a table: the leaderboard, the queue's mix, what was mined, …"),
    "why": Command("why:why", LOOK, "Explain why a checkpoint is, or is not, live: each system's verdict."),
    "events": Command("events:events", LOOK, "List events from the ledger's outbox, the newest last."),
    "logs": Command("events:logs", LOOK, "Show the logs of this machine's workers and model processes."),
    "systems": Command("systems:systems", LOOK, "List the installed systems, and the events that connect them."),
    "queue": Command("queue:app", ACT, "Show what waits for training, and add data of your own."),
    "train": Command("operate:train", ACT, "Pause and resume training, or skip the batch that is in training."),
    "deploy": Command("operate:deploy", ACT, "Decide what is live: deploy, roll back, freeze."),
    "dead": Command("dead:app", ACT, "Show what failed again and again, and retry it."),
    "init": Command("init:init", SETUP, "Write ratchet.toml for your model and data: every setting with its meaning."),
    "config": Command("config:app", SETUP, "Show and check the settings."),
    "doctor": Command("doctor:doctor", SETUP, "Check this machine and this home. Exit code 1: a run could not start."),
    "backup": Command("backup:app", SETUP, "Copy the ledger and all artifacts into a folder, and bring them back."),
    "migrate": Command("stack:migrate", SETUP, "Bring the ledger to this version's schema. `ratchet run` does so too."),
    "prepare": Command(
        "stack:prepare", SETUP, "Publish the base model and the test suites. `ratchet run` does so too."
    ),
    "discover": Command("stack:discover", SETUP, "Serve Prometheus: where the workers are, and metrics of the stack."),
}


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, each imported on first use."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, COMMANDS[name].target)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in self._loaded


def _load(name: str, target: str) -> Any:
    module, attribute = target.split(":")
    # What an import makes stays, so each collection in the middle of it walks over everything for nothing.
    gc.disable()
    try:
        found = getattr(importlib.import_module(f"ratchet.cli.{module}"), attribute)
    finally:
        gc.freeze()
        gc.enable()
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(found)
        found = single
    command = typer.main.get_command(found)
    command.name = name
    _print_plainly(command)
    return command


def _print_plainly(command: Any) -> None:
    """Help and errors without rich, whose import takes longer than all the rest of them."""
    command.rich_markup_mode = None
    for inner in getattr(command, "commands", {}).values():
        _print_plainly(inner)


class Root(TyperGroup):
    """The group of all commands."""

    def __init__(self, **attributes: Any):
        super().__init__(**attributes)
        self.commands = LazyCommands()

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        for heading in (RUN, LOOK, ACT, SETUP):
            rows = [(name, command.summary) for name, command in COMMANDS.items() if command.heading == heading]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except RatchetError as error:
            raise _refused(error) from error
        except OSError as error:
            from ratchet.disk import explain_home_error

            names_no_file = isinstance(error, PermissionError) and error.filename is None  # as of a port
            trouble = explain_home_error(error, Path(error.filename or os.environ.get("RATCHET_HOME", ".")))
            if trouble is None or names_no_file:
                raise
            raise _refused(trouble) from error


def _refused(error: RatchetError) -> typer.Exit:
    """The exit to raise, once the error is printed. A name in it may be no UTF-8."""
    typer.echo(f"ratchet: {str(error).encode(errors='backslashreplace').decode()}", err=True)
    return typer.Exit(EXIT_ERROR)


app = typer.Typer(
    cls=Root, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ratchet.build import SHARED, package_digest  # reads every file of the package

        typer.echo(f"ratchet {__version__} (build {package_digest(SHARED)})")
        raise typer.Exit


@app.callback()
def main(
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: ratchet.toml in this folder, if there is one.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder that Ratchet keeps everything in.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One setting, over file and environment."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train a language model around the clock, and only ever serve one that is proved better.

    `ratchet run` starts everything on this machine. `ratchet watch` shows it, `ratchet why CHECKPOINT` explains.
    """
    if config is not None:
        from ratchet.user_files import printable

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
