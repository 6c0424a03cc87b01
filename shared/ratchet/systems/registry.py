"""Finding the systems: every module in a package named by the entry-point group ``ratchet.systems`` declares one.

``RATCHET_SYSTEMS`` names the packages to take instead, comma-separated; ``installed`` among them stands for those of
the entry points. So ``installed,mine.systems`` adds a system that is no installed distribution.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from ratchet.errors import UnknownPlugin
from ratchet.systems.system import System

GROUP = "ratchet.systems"
CHOICE = "RATCHET_SYSTEMS"
INSTALLED = "installed"
ORDER = [
    "training",
    "testing",
    "regression",
    "comparison",
    "calibration",
    "mining",
    "correction",
    "diversity",
    "curriculum",
    "generation",
    "deployment",
]


@cache
def systems() -> dict[str, System]:
    """All installed systems by name: the eleven in the order of the docs, then the others by name."""
    found = [system for package in _packages() for system in _declared(package)]
    found.sort(key=lambda s: (ORDER.index(s.name) if s.name in ORDER else len(ORDER), s.name))
    return {system.name: system for system in found}


def get(name: str) -> System:
    """The system of that name. Raises UnknownPlugin with the names that are installed here.

    A system in a module of its own name is found without importing the others, which a worker has no use for.
    """
    for package in _packages():
        if importlib.util.find_spec(f"{package}.{name}") is not None:
            system = _declared_in(f"{package}.{name}")
            if system is not None and system.name == name:
                return system
    try:
        return systems()[name]
    except KeyError:
        raise UnknownPlugin(f"no system {name!r} is installed here; there are: {', '.join(systems())}.") from None


def _packages() -> list[str]:
    chosen = [name for name in os.environ.get(CHOICE, INSTALLED).split(",") if name]
    installed = [entry.value for entry in entry_points(group=GROUP)]
    return [package for name in chosen for package in (installed if name == INSTALLED else [name])]


def _declared(package_name: str) -> list[System]:
    package = importlib.import_module(package_name)
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [_declared_in(f"{package_name}.{name}") for name in names]
    return [system for system in found if system is not None]


def _declared_in(module_name: str) -> System | None:
    declared = getattr(importlib.import_module(module_name), "SYSTEM", None)
    return declared if isinstance(declared, System) else None
