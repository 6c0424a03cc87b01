"""Task families by name, from the entry-point group ``ratchet.tasks``.

An entry point is a family's class, called without arguments; or a function that makes many families: ``rg:dice`` is
what the entry point ``rg`` makes of ``dice``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from ratchet.errors import UnknownPlugin
from ratchet.tasks.family import TaskFamily

GROUP = "ratchet.tasks"


@cache
def get(name: str) -> TaskFamily:
    """The family of this name, the same object every time. Raises UnknownPlugin, listing the known ones."""
    require(name)
    prefix, separator, rest = name.partition(":")
    make = cast(Callable[..., TaskFamily], _points()[prefix].load())
    return make(rest) if separator else make()


def require(name: str) -> None:
    """Raise UnknownPlugin for a name that no plug-in claims. What is behind a source is not looked at."""
    prefix, separator, _ = name.partition(":")
    point = _points().get(prefix)
    if point is None or bool(separator) != _is_source(point):
        raise UnknownPlugin(f"no task family {name!r}. Known: {', '.join(known())}.")


def find(name: str | None) -> TaskFamily | None:
    """As get, but None for a name that no installed plug-in claims."""
    if name is None or name.partition(":")[0] not in _points():
        return None
    return get(name)


def known() -> list[str]:
    """Names of the installed families; ``rg:<dataset>`` stands for every dataset behind a source."""
    return sorted(f"{name}:<dataset>" if _is_source(point) else name for name, point in _points().items())


def grader_id(names: Iterable[str]) -> str:
    """What grades these families, with versions: part of a record's key."""
    from ratchet.tasks import graders

    families = [find(name) for name in sorted(set(names))]
    return "+".join([f"{family.name}@{family.version}" for family in families if family] + [graders.VERSION])


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _is_source(point: EntryPoint) -> bool:
    """Whether the entry point makes families from a name, and is not itself a family's class."""
    return not isinstance(point.load(), type)
