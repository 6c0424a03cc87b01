"""Task families by name, from the entry-point group ``ratchet.tasks``.

An entry point is a family's class, called without arguments, or a function that creates many families: ``rg:dice`` is
the result of calling the entry point ``rg`` with ``dice``.
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
    """The family of this name, always the same object. Raises UnknownPlugin, listing the known ones."""
    require(name)
    prefix, separator, rest = name.partition(":")
    make = cast(Callable[..., TaskFamily], _points()[prefix].load())
    return make(rest) if separator else make()


def require(name: str) -> None:
    """Raise UnknownPlugin for a name without a plug-in. After a prefix such as ``rg:`` the name is not checked."""
    prefix, separator, _ = name.partition(":")
    point = _points().get(prefix)
    if point is None or bool(separator) != _is_source(point):
        raise UnknownPlugin(f"no task family {name!r}. Known: {', '.join(known())}.")


def find(name: str | None) -> TaskFamily | None:
    """As ``get``, but None for a name without an installed plug-in."""
    if name is None or name.partition(":")[0] not in _points():
        return None
    return get(name)


def known() -> list[str]:
    """Names of the installed families; ``rg:<dataset>`` stands for all datasets of an entry point."""
    return sorted(f"{name}:<dataset>" if _is_source(point) else name for name, point in _points().items())


def grader_id(names: Iterable[str]) -> str:
    """Names and versions of the graders of these families, which are part of a record's key."""
    from ratchet.tasks import graders

    families = [find(name) for name in sorted(set(names))]
    return "+".join([f"{family.name}@{family.version}" for family in families if family] + [graders.VERSION])


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _is_source(point: EntryPoint) -> bool:
    """Whether the entry point is a function that creates families from a name, not a family's class."""
    return not isinstance(point.load(), type)
