"""Profiles by name, from the entry-point group ``ratchet.profiles``. A profile's options are its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from ratchet.errors import SettingsError, UnknownPlugin
from ratchet.profiles.profile import Profile

GROUP = "ratchet.profiles"


def get(name: str, options: Mapping[str, Any] | None = None) -> Profile:
    """The profile of this name with its options.

    Raises UnknownPlugin, listing the known ones, and SettingsError for options that it does not have.
    """
    point = _points().get(name)
    if point is None:
        raise UnknownPlugin(f"no profile {name!r}. Known: {', '.join(known())}.")
    make = cast(Callable[..., Profile], point.load())
    signature = inspect.signature(make)
    try:
        signature.bind(**(options or {}))
    except TypeError as error:
        has = ", ".join(signature.parameters) or "none"
        raise SettingsError(f"profile.options of {name!r}: {error}. Its options: {has}.") from error
    return make(**(options or {}))


def known() -> list[str]:
    """Names of the installed profiles."""
    return sorted(_points())


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
