"""Finding the systems: every module in a package named by the entry-point group ``ratchet.systems`` declares one.

A module that cannot be imported stops no other: ``broken`` names it, with its traceback.

``RATCHET_SYSTEMS`` names the packages to take instead, comma-separated; ``installed`` among them stands for those of
the entry points. So ``installed,mine.systems`` adds a system that is no installed distribution.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import traceback
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
    return _found()[0]


def broken() -> dict[str, str]:
    """Tracebacks of the modules that should declare a system and cannot be imported, by their last name."""
    return _found()[1]


def get(name: str) -> System:
    """The system of that name. Raises UnknownPlugin with the names that are installed here.

    A system in a module of its own name is found without importing the others, which a worker has no use for. Where
    that cannot be imported, its own error is raised.
    """
    for package in _packages():
        if name == _last(package):
            importlib.import_module(package)
        elif _has(package, name):
            system = _declared_in(f"{package}.{name}")
            if system is not None and system.name == name:
                return system
    try:
        return systems()[name]
    except KeyError:
        raise UnknownPlugin(f"no system {name!r} is installed here; there are: {', '.join(systems())}.") from None


@cache
def _found() -> tuple[dict[str, System], dict[str, str]]:
    found, failed = [], {}
    for package in _packages():
        try:
            modules = _modules(package)
        except Exception:  # noqa: BLE001 -- whatever a plug-in raises, the others are found, and it is told
            failed[_last(package)] = traceback.format_exc()
            continue
        for module in modules:
            try:
                system = _declared_in(module)
            except Exception:  # noqa: BLE001 -- as above
                failed[_last(module)] = traceback.format_exc()
                continue
            if system is not None:
                found.append(system)
    found.sort(key=lambda s: (ORDER.index(s.name) if s.name in ORDER else len(ORDER), s.name))
    return {system.name: system for system in found}, failed


def _packages() -> list[str]:
    chosen = [name for name in os.environ.get(CHOICE, INSTALLED).split(",") if name]
    installed = [entry.value for entry in entry_points(group=GROUP)]
    return [package for name in chosen for package in (installed if name == INSTALLED else [name])]


def _has(package: str, name: str) -> bool:
    """Whether the package has a module of that name; one that cannot be imported itself has none."""
    try:
        return importlib.util.find_spec(f"{package}.{name}") is not None
    except Exception:  # noqa: BLE001 -- finding a module imports its package, and another's fault is told by ``broken``
        return False


def _modules(package_name: str) -> list[str]:
    package = importlib.import_module(package_name)
    return [
        f"{package_name}.{name}" for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    ]


def _declared_in(module_name: str) -> System | None:
    declared = getattr(importlib.import_module(module_name), "SYSTEM", None)
    return declared if isinstance(declared, System) else None


def _last(module: str) -> str:
    return module.rpartition(".")[2]
