"""Where the values of a process come from, also of one that was started with all its settings in the environment.

`ratchet run` starts other processes that way: in them every value comes from a variable. So it writes down where it has
its own values from, and a process with the same settings reads that. It knows no setting's meaning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet.atomic_files import atomic_write
from ratchet.errors import RatchetError
from ratchet.printable import printable
from ratchet.settings import sources
from ratchet.settings.settings import Settings, load_with_origins
from ratchet.user_files import read_text

FILE = "origins.json"
OPTION = "an option of the command"

_TABLE = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([\w\-.\"']+)\s*=")


@dataclass(frozen=True)
class Origins:
    """``by_name`` says in words where a value comes from, by dotted name; a value that is not in it is the default.

    ``pending`` has the values that a process would have that is started now, where they differ. ``note`` says what is
    not known.
    """

    by_name: Mapping[str, str] = field(default_factory=dict)
    pending: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def hand_over(settings: Settings, folder: Path) -> None:
    """Write down where this process has these settings from, for the processes that it starts.

    Nothing is written, and what an earlier process wrote is removed, where they are not the ones that are in force
    here, or the folder cannot be written to: then the others say that they do not know.
    """
    file = folder / FILE
    with suppress(OSError, RatchetError):
        file.unlink(missing_ok=True)
        loaded, origins = load_with_origins()
        if values(loaded) == values(settings):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            told = {name: _in_words(name, origin) for name, origin in origins.items()}
            atomic_write(file, json.dumps({"settings": _digest(settings), "origins": told}), mode=0o600)


def origins_of(settings: Settings, folder: Path) -> Origins:
    """Where the settings of this process come from. ``folder`` is where ``hand_over`` wrote."""
    if _are_handed_over(settings):
        told = _handed_over(settings, folder)
        if told is not None:
            return Origins(told)
        return Origins(
            note="These values were handed over by the process that started this one, without their origins."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded, origins = load_with_origins()
    except RatchetError as error:
        return Origins(note=f"The settings cannot be read again, so their origins are not known: {error}")
    now, found = values(settings), values(loaded)
    told = {name: _in_words(name, origin) for name, origin in origins.items()}
    pending = {name: value for name, value in found.items() if name in now and value != now[name]}
    for name in [name for name in pending if name.startswith("web.")]:
        told[name] = OPTION  # `ratchet web` takes some
        del pending[name]
    for name in pending:
        told.pop(name, None)
    return Origins(told, pending)


def values(settings: Settings) -> dict[str, Any]:
    """All values by dotted name, as JSON. Secrets are masked."""
    return flat(settings.model_dump(mode="json"))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by dotted name; an empty table is a leaf."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def line_of(text: str, name: str) -> int | None:
    """The line of a TOML text that sets a value, from 1; of an inline table the line where it begins."""
    table = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if (heading := _TABLE.match(line)) is not None:
            table = _unquoted(heading[1]) + "."
        elif (key := _KEY.match(line)) is not None:
            found = table + _unquoted(key[1])
            if name == found or name.startswith(f"{found}."):
                return number
    return None


def _unquoted(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.strip().split("."))


def _in_words(name: str, origin: str) -> str:
    """``ratchet.toml, line 12``, ``RATCHET_QUEUE__LOW_WATER`` or ``--set``."""
    file = sources.file_in_force(None)
    if origin != printable(file):
        return origin
    with suppress(RatchetError, OSError):
        number = line_of(read_text(file, RatchetError), name)
        if number is not None:
            return f"{origin}, line {number}"
    return origin


def _are_handed_over(settings: Settings) -> bool:
    """Whether each section comes from a variable of its own, as ``settings.section.environment`` makes them."""
    return all(f"{sources.PREFIX}{name.upper()}" in os.environ for name in type(settings).model_fields)


def _handed_over(settings: Settings, folder: Path) -> dict[str, str] | None:
    """What ``hand_over`` wrote for the same settings."""
    try:
        found = json.loads((folder / FILE).read_bytes())
        is_ours = found["settings"] == _digest(settings)
        return {str(name): str(origin) for name, origin in found["origins"].items()} if is_ours else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(settings: Settings) -> str:
    return hashlib.sha256(json.dumps(values(settings), sort_keys=True).encode()).hexdigest()
