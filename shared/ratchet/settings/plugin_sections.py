"""Sections of plug-in systems: a system that declares ``System(settings=MySettings)`` has a section named after it.

A section is searched for when a file, the environment or ``--set`` names it. Only that system's module is imported, so
such a system must be in a module of its own name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from importlib.metadata import entry_points

from ratchet.errors import SettingsError
from ratchet.settings.section import Section

GROUP = "ratchet.systems"
CHOICE = "RATCHET_SYSTEMS"
INSTALLED = "installed"


def system_packages() -> list[str]:
    """Packages whose modules declare systems: those of the entry points, or those that RATCHET_SYSTEMS names.

    ``installed`` in that list stands for those of the entry points.
    """
    chosen = [name for name in os.environ.get(CHOICE, INSTALLED).split(",") if name]
    return [package for name in chosen for package in (_installed() if name == INSTALLED else [name])]


def declared_section(name: str) -> type[Section] | None:
    """The settings that the system of that name declares; None if there is no such system or it has none.

    Raises SettingsError where its module cannot be imported.
    """
    if not name.isidentifier():
        return None
    for package in system_packages():
        if not has_module(package, name):
            continue
        try:
            system = getattr(importlib.import_module(f"{package}.{name}"), "SYSTEM", None)
        except Exception as error:
            raise SettingsError(f"the section {name} belongs to {package}.{name}, which fails: {error}.") from error
        if system is not None and system.name == name:
            declared: type[Section] | None = system.settings
            return declared
    return None


def has_module(package: str, name: str) -> bool:
    """Finding a module imports its package; errors of that import are reported when workers start."""
    try:
        return importlib.util.find_spec(f"{package}.{name}") is not None
    except Exception:  # noqa: BLE001 -- whatever a plug-in raises, the other packages are searched
        return False


@cache
def _installed() -> list[str]:
    return [entry.value for entry in entry_points(group=GROUP)]
