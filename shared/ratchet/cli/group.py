"""The command group: commands are imported when they are called, and our own errors become one line and exit code 2.

So does an error of the disk: a full or read-only one can fail any command anywhere, and no traceback says what to do.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from ratchet.disk import explained
from ratchet.errors import RatchetError

EXIT_ERROR = 2


class Place(NamedTuple):
    """Where a command is (``module:attribute`` below ratchet.cli) and under which heading the help lists it."""

    target: str
    panel: str


class Commands(MutableMapping[str, Any]):
    """Commands by name, imported on first use, so that no command pays for the imports of another."""

    def __init__(self, places: dict[str, Place]):
        self._places = places
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._load(name, self._places[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @staticmethod
    def _load(name: str, place: Place) -> Any:
        module, attribute = place.target.split(":")
        found = getattr(importlib.import_module(f"ratchet.cli.{module}"), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(name)(found)
            found = single
        command: Any = typer.main.get_command(found)
        command.name, command.rich_help_panel = name, place.panel
        return command


def lazy_group(places: dict[str, Place]) -> type[TyperGroup]:
    """A group class over such a table."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any):
            super().__init__(**attributes)
            self.commands = Commands(dict(places))

        def list_commands(self, _ctx: Any) -> list[str]:
            return list(self.commands)

        def invoke(self, ctx: Any) -> Any:
            try:
                return super().invoke(ctx)
            except RatchetError as error:
                said = str(error).encode(errors="backslashreplace").decode()  # a name may be no UTF-8
                typer.echo(f"ratchet: {said}", err=True)
                raise typer.Exit(EXIT_ERROR) from error
            except OSError as error:
                of_no_file = isinstance(error, PermissionError) and error.filename is None  # as of a port
                trouble = explained(error, Path(error.filename or os.environ.get("RATCHET_HOME", ".")))
                if trouble is None or of_no_file:
                    raise
                typer.echo(f"ratchet: {trouble}", err=True)
                raise typer.Exit(EXIT_ERROR) from error

    return LazyGroup
