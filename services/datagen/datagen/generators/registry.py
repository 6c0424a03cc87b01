"""Generators by name, from the entry-point group ``ratchet.generators``: a class, called with the options."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, cast

from pydantic import ValidationError
from ratchet.errors import SettingsError, UnknownPlugin
from ratchet.plugins import GENERATORS

from datagen.generators.generator import Generator


def make(name: str, options: Mapping[str, Any]) -> Generator:
    """The generator of this name. Raises UnknownPlugin, or SettingsError for options that it does not have."""
    point = next((point for point in entry_points(group=GENERATORS) if point.name == name), None)
    if point is None:
        raise UnknownPlugin(f"no generator {name!r} (generation.sources). Known: {', '.join(known())}.")
    try:
        return cast(Generator, point.load()(**options))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SettingsError(f"options of the generator {name} are wrong:\n" + "\n".join(lines)) from error
    except TypeError as error:
        raise SettingsError(f"options of the generator {name} are wrong: {error}") from error


def known() -> list[str]:
    """Names of the installed generators."""
    return sorted(point.name for point in entry_points(group=GENERATORS))
