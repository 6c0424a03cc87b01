"""Arms by name, from the entry-point group ``ratchet.arms``: an arm's class, called without arguments."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from ratchet.errors import UnknownPlugin
from ratchet.plugins import ARMS

from datagen.arms.arm import Arm


@cache
def get(name: str) -> Arm:
    """The arm of this name, the same object every time. Raises UnknownPlugin, listing the known ones."""
    point = _points().get(name)
    if point is None:
        raise UnknownPlugin(f"no curriculum arm {name!r} (curriculum.arms). Known: {', '.join(known())}.")
    return cast(Arm, point.load()())


def known() -> list[str]:
    """Names of the installed arms."""
    return sorted(_points())


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ARMS)}
