"""Where settings come from: a file, the environment and ``--set``, laid over each other in one tree.

The tree keeps where each of its values came from. This module knows the schema, but not the meaning of any setting. An
environment variable is parsed as JSON if its field is a list, a table or a section; otherwise validation parses it.
"""

from __future__ import annotations

import json
import os
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeIs

from ratchet.errors import SettingsError
from ratchet.printable import printable
from ratchet.settings.legacy import FIELDS, Gone, rename
from ratchet.user_files import read_text

PREFIX = "RATCHET_"
NESTED = "__"
FILE = "ratchet.toml"
COMMAND_LINE = "--set"

Tree = dict[str, Any]
Schema = type[BaseModel]

_assigned: dict[str, str] = {}
"""The value that ``--set`` has written into each variable; ``config show`` tells these from the others."""


class LegacySetting(UserWarning):
    """A settings file uses a name of the prior system; the message has the current name."""


@dataclass
class Layers:
    """A tree of values, and the origin of each by dotted name. Later layers take precedence."""

    tree: Tree = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def lay(self, tree: Mapping[str, Any], origin: str) -> None:
        """Add a layer: tables are merged, everything else is replaced."""
        self._lay(self.tree, tree, origin, "")

    def _lay(self, below: Tree, above: Mapping[str, Any], origin: str, prefix: str) -> None:
        for name, value in above.items():
            known = below.get(name)
            if isinstance(value, Mapping):
                if isinstance(known, BaseModel):
                    known = known.model_dump()
                below[name] = known if isinstance(known, dict) else {}
                self._lay(below[name], value, origin, f"{prefix}{name}.")
            else:
                below[name] = value
                self.origins[f"{prefix}{name}"] = origin


def file_in_force(given: Path | None) -> Path:
    """The file that was given, or RATCHET_CONFIG, or ``ratchet.toml`` in this folder. It may not exist."""
    return given or Path(os.environ.get("RATCHET_CONFIG", FILE))


def read_file(file: Path) -> Tree:
    """The tree of a TOML or, for ``*.json``, JSON file; a LegacySetting warning for each name of the prior system.

    Raises SettingsError for anything else.
    """
    text = read_text(file, SettingsError).removeprefix("\ufeff")  # which editors on Windows write
    try:
        tree = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        if not isinstance(tree, dict):
            raise ValueError(f"expected a JSON object, not {type(tree).__name__}")
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{printable(file)}: {error}") from error
    renamed, notes = rename(tree)
    for note in notes:
        warnings.warn(f"{printable(file)}: {note}", LegacySetting, stacklevel=2)
    return renamed


def variables() -> dict[tuple[str, ...], str]:
    """The variables of the environment that may be settings, by their path: ``("queue", "low_water")``."""
    found = {}
    for variable in os.environ:
        if variable.upper().startswith(PREFIX):
            found[tuple(variable[len(PREFIX) :].lower().split(NESTED))] = variable
    return dict(sorted(found.items()))  # a whole section before its fields


def lay_environment(layers: Layers, schema: Schema) -> None:
    """Add the environment's variables for the schema's settings as a layer.

    Raises SettingsError for a variable of an unknown section, which would otherwise have no effect, and for invalid
    JSON where the field is a list or a table.
    """
    found = variables()
    for path, variable in found.items():
        if path[0] not in schema.model_fields and len(path) > 1:
            raise SettingsError(f"{variable}: {unknown('.'.join(path), schema)}")
    if not found:
        return
    tree = _read_environment(schema)
    for path, variable in found.items():
        value: Any = tree
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            continue
        for name in reversed(path):
            value = {name: value}
        layers.lay(value, COMMAND_LINE if _assigned.get(variable) == os.environ[variable] else variable)


def _read_environment(schema: Schema) -> Tree:
    """The values that pydantic-settings reads from the environment for the schema: text, or JSON for lists, tables and
    sections.

    It is imported here and not above, and Settings is a plain model, because the import takes a tenth of a second of
    CPU, and most commands are started without a variable.
    """
    from pydantic_settings import BaseSettings, EnvSettingsSource
    from pydantic_settings import SettingsError as UnreadableVariable

    source = EnvSettingsSource(
        cast(type[BaseSettings], schema), case_sensitive=False, env_prefix=PREFIX, env_nested_delimiter=NESTED
    )
    try:
        return source()
    except UnreadableVariable as error:
        suspects = [variable for path, variable in variables().items() if f'"{path[0]}"' in str(error)]
        raise SettingsError(
            f'{", ".join(suspects)}: write a list, a table or a section as JSON, such as \'["a", "b"]\'.'
        ) from error


def assign(assignment: str, schema: Schema) -> None:
    """Put ``queue.low_water=100`` into the environment, where this process and its workers read it."""
    name, separator, value = assignment.partition("=")
    section = name.strip().split(".")[0]
    if not separator or section not in schema.model_fields:
        raise SettingsError(
            f"--set {assignment}: write SECTION.FIELD=VALUE, such as queue.low_water=500; sections are "
            f"{', '.join(schema.model_fields)}."
        )
    variable = PREFIX + name.strip().replace(".", NESTED).upper()
    os.environ[variable] = _assigned[variable] = value.strip()


def section_of(assignment: str) -> str:
    """``queue`` of ``queue.low_water=100``."""
    return assignment.partition("=")[0].strip().split(".")[0]


def names(schema: Schema, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields, sections included."""
    for name, info in schema.model_fields.items():
        yield prefix + name
        if is_section(info.annotation):
            yield from names(info.annotation, f"{prefix}{name}.")


def is_section(annotation: Any) -> TypeIs[Schema]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def explain(error: ValidationError, schema: Schema) -> str:
    """One line per mistake: its dotted name and the error, for an unknown name with the nearest known one."""
    lines = []
    for mistake in error.errors():
        name = ".".join(map(str, mistake["loc"]))
        message = unknown(name, schema) if mistake["type"] == "extra_forbidden" else str(mistake["msg"])
        lines.append(f"  {name}: {message}")
    return "\n".join(lines)


def unknown(name: str, schema: Schema) -> str:
    """An error message for an unknown setting, with the one that was probably meant."""
    prior = FIELDS.get(name)
    if isinstance(prior, Gone):
        return f"there is no such setting any more: {prior.because}"
    near = prior.new if prior is not None else nearest(name, schema)
    return "there is no such setting" + (f"; did you mean {near}?" if near else "")


def nearest(name: str, schema: Schema) -> str | None:
    """The known name most like ``name``: the same field of another section, else the nearest in spelling."""
    known = list(names(schema))
    leaf = name.rpartition(".")[2]
    same = [other for other in known if "." in other and other.rpartition(".")[2] == leaf]
    if same:
        return same[0]
    if close := get_close_matches(name, known, n=1, cutoff=0.75):
        return close[0]
    leaves = {other.rpartition(".")[2]: other for other in reversed(known)}
    close = get_close_matches(leaf, list(leaves), n=1, cutoff=0.75)
    return leaves[close[0]] if close else None
