"""A settings file as a tree: TOML or JSON, with the names of the system that Ratchet replaces turned into ours."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ratchet.errors import SettingsError
from ratchet.files import printable, read_text
from ratchet.settings.legacy import FIELDS, Gone, Kept

Tree = dict[str, Any]


class LegacySetting(UserWarning):
    """A settings file uses a name of the prior system; the message has the name of today."""


def read(file: Path) -> Tree:
    """The file's tree, a name of the prior system under its name of today, with a LegacySetting warning each.

    Raises ValueError where it is neither TOML nor, for ``*.json``, a JSON object; SettingsError where it is no file.
    """
    text = read_text(file, SettingsError)
    tree = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    if not isinstance(tree, dict):
        raise ValueError(f"a JSON object is expected, not {type(tree).__name__}")
    renamed, notes = rename(tree)
    for note in notes:
        warnings.warn(f"{printable(file)}: {note}", LegacySetting, stacklevel=2)
    return renamed


def rename(tree: Mapping[str, Any]) -> tuple[Tree, list[str]]:
    """The tree under the names of today, and a note for each name that is another one now.

    Where a file gives a setting under both names, the one of today counts.
    """
    renamed: Tree = {}
    notes: list[str] = []
    moved: list[tuple[str, Kept, Any]] = []
    for name, value in _leaves(_with_ports(tree)):
        fate = FIELDS.get(name)
        if isinstance(fate, Gone):
            notes.append(f"{name} is ignored: {fate.because}.")
        elif fate is None or fate.new == name:
            _put(renamed, name, fate.convert(value) if fate else value)
        else:
            moved.append((name, fate, value))
    for name, kept, value in moved:
        if _has(renamed, kept.new):
            notes.append(f"{name} is ignored: {kept.new} is set as well, and that is its name now.")
        elif value is not None and (turned := kept.convert(value)) is not None:
            _put(renamed, kept.new, turned)
            notes.append(f"{name} is called {kept.new} now.")
    return renamed, notes


def _with_ports(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Host and port of the prior system's preview server are one address."""
    monitoring = tree.get("monitoring")
    if not isinstance(monitoring, Mapping) or not monitoring.get("remote_3090_host"):
        return tree
    address = f"http://{monitoring['remote_3090_host']}:{monitoring.get('remote_3090_port', 8765)}"
    return {**tree, "monitoring": {**monitoring, "remote_3090_host": address}}


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """``section.field`` and value; what is no section keeps its own name. An empty section is left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{field}", inner) for field, inner in value.items())
        else:
            yield name, value


def _has(tree: Tree, name: str) -> bool:
    section, _, field = name.rpartition(".")
    holder = tree.get(section, {}) if section else tree
    return isinstance(holder, dict) and field in holder


def _put(tree: Tree, name: str, value: Any) -> None:
    """A value where a section is expected stays, for validation to complain of."""
    section, _, field = name.rpartition(".")
    holder = tree.setdefault(section, {}) if section else tree
    if isinstance(holder, dict):
        holder[field] = value
