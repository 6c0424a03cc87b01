"""The entry point of the command line: the list of commands, and the global options.

A command's module is imported when the command is called; `ratchet --help` imports none of them. Ratchet's own errors
become one line and exit code 2 (4 for `ratchet verdict`), and so do disk errors, since the disk may be full or
read-only for any command.
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
from ratchet.cli.output import say
from ratchet.errors import RatchetError, SettingsError

EXIT_ERROR = 2
UsageError: Any = typer.BadParameter.__base__
RUN, INSPECT, OPERATE, SETUP = "Run", "Inspect", "Operate", "Set up"


class Command(NamedTuple):
    """Where a command is (``module:attribute`` below ratchet.cli), its heading in the help, and what it does.

    ``exit_error`` is its exit code for an error, where 2 means something else.
    """

    target: str
    heading: str
    summary: str
    exit_error: int = EXIT_ERROR


COMMANDS = {
    "run": Command(
        "run:run", RUN, "Start everything on this machine and show it: Redis, all systems and the inference server."
    ),
    "stop": Command("run:stop", RUN, "Stop this home's run from another terminal, and wait until it has ended."),
    "reset": Command(
        "run:reset", RUN, "Remove the home: ledger, checkpoints, queue, logs. What is in PostgreSQL or S3 stays."
    ),
    "serve": Command("serve:serve", RUN, "Run the inference server by itself, with the engine of serving.engine."),
    "web": Command("web:web", RUN, "Serve the Control Room by itself, the page that shows all this in a browser."),
    "ask": Command("serve:ask", RUN, "Ask the served model, and say which checkpoint answered."),
    "status": Command(
        "status:status", INSPECT, "Show what is going on right now: queue, training, checkpoints, what is live and why."
    ),
    "watch": Command("status:watch", INSPECT, "Show it live. Ctrl-C leaves the run alone."),
    "show": Command("show:app", INSPECT, "Show one topic as a table: leaderboard, history, mined items, …"),
    "why": Command("why:why", INSPECT, "Explain why a checkpoint is or is not live: each system's verdict."),
    "report": Command("report:report", INSPECT, "Write the Control Room's pages as one HTML file, to keep or to send."),
    "events": Command("events:events", INSPECT, "List events from the ledger's outbox, the newest last."),
    "logs": Command("events:logs", INSPECT, "Show the logs of this machine's workers and model processes."),
    "systems": Command("systems:systems", INSPECT, "List the installed systems, and the events that connect them."),
    "verdict": Command(
        "verdict:verdict", INSPECT, "Say whether one model is better than another, on rows of yours: for pipelines.", 4
    ),
    "data": Command("data:app", OPERATE, "Add your own data as a task, and list and change tasks."),
    "queue": Command("queue:app", OPERATE, "Show what waits for training, and skip a batch."),
    "train": Command("operate:train", OPERATE, "Pause and resume training, or skip the batch that is in training."),
    "deploy": Command("operate:deploy", OPERATE, "Decide what is live: deploy, roll back, freeze."),
    "drill": Command(
        "drill:app",
        OPERATE,
        "Rehearse a rollback: plant a bad checkpoint, and see that it is caught. Clients see none of it.",
    ),
    "export": Command(
        "export:export", OPERATE, "Write a checkpoint as a Hugging Face folder, for other programs or the hub."
    ),
    "dead": Command("dead:app", OPERATE, "Show what failed repeatedly, and retry it."),
    "init": Command("init:init", SETUP, "Write ratchet.toml for your model and data: every setting with its meaning."),
    "config": Command("config:app", SETUP, "Show and check the settings."),
    "doctor": Command(
        "doctor:doctor", SETUP, "Check this machine and this home. Exit code 1 if a run could not start."
    ),
    "backup": Command("backup:app", SETUP, "Copy the ledger and all artifacts into a folder, and restore them."),
    "migrate": Command(
        "stack:migrate", SETUP, "Migrate the ledger to this version's schema. `ratchet run` does it too."
    ),
    "prepare": Command(
        "stack:prepare", SETUP, "Publish the base model and the test suites. `ratchet run` does it too."
    ),
    "discover": Command("stack:discover", SETUP, "Serve scrape targets and stack-wide metrics to Prometheus."),
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
    # What an import creates stays alive, so garbage collection during the import is wasted.
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
    """Print help and errors without rich, whose import takes longer than everything else."""
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
        for heading in (RUN, INSPECT, OPERATE, SETUP):
            rows = [(name, command.summary) for name, command in COMMANDS.items() if command.heading == heading]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.exit_code = _exit_code(ctx)
            raise
        except RatchetError as error:
            raise _exit_with(error, _exit_code(ctx)) from error
        except OSError as error:
            from ratchet.disk import explain_home_error

            names_no_file = isinstance(error, PermissionError) and error.filename is None  # as for a port
            home_error = explain_home_error(error, Path(error.filename or os.environ.get("RATCHET_HOME", ".")))
            if home_error is None or names_no_file:
                raise
            raise _exit_with(home_error, _exit_code(ctx)) from error


def _exit_code(ctx: Any) -> int:
    """The exit code for an error of the command that was called."""
    called = COMMANDS.get(ctx.invoked_subcommand or "")
    return called.exit_error if called is not None else EXIT_ERROR


def _exit_with(error: RatchetError, code: int) -> typer.Exit:
    """Print the error and return the exit to raise. File names in the message may not be UTF-8."""
    say(f"ratchet: {error}", err=True)
    return typer.Exit(code)


app = typer.Typer(
    cls=Root, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ratchet.build import SHARED, package_digest  # reads every file of the package

        say(f"ratchet {__version__} (build {package_digest(SHARED)})")
        raise typer.Exit


@app.callback()
def main(
    config: Annotated[
        Path | None, typer.Option(help="Settings file. Default: ratchet.toml in this folder, if there is one.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Folder for all of Ratchet's data.")] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Set one setting, over file and environment."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train a language model around the clock, and serve only models that are proved better.

    `ratchet run` starts everything on this machine. `ratchet watch` shows it, `ratchet why CHECKPOINT` explains.
    """
    if config is not None:
        from ratchet.printable import printable

        if not os.path.exists(config):  # Path.exists raises for a name that is too long
            raise SettingsError(f"{printable(config)}: no such file; `ratchet init` writes one.")
        os.environ["RATCHET_CONFIG"] = str(config.resolve())
    if home is not None:
        os.environ["RATCHET_HOME"] = str(home)
    if assign:
        from ratchet.settings.settings import schema_with  # slow to import and rarely needed
        from ratchet.settings.sources import assign as put
        from ratchet.settings.sources import section_of

        schema = schema_with([section_of(assignment) for assignment in assign])
        for assignment in assign:
            put(assignment, schema)
