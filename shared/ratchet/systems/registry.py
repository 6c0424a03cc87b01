"""Finding the systems: every module in a package named by the entry-point group ``ratchet.systems`` declares one.

A module that cannot be imported does not affect the others; ``broken`` returns it with its traceback.

``RATCHET_SYSTEMS`` lists the packages to use instead, separated by commas; ``installed`` stands for those of the entry
points. So ``installed,mine.systems`` adds systems from a package that is not an installed distribution.
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from collections.abc import Collection
from functools import cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed, UnknownPlugin
from ratchet.ledger.health import ABSENT, LISTED_S, PRESENT_S
from ratchet.ledger.ledger import Transaction, clock
from ratchet.ledger.tables import WorkerRow
from ratchet.settings.plugin_sections import has_module, system_packages
from ratchet.systems.system import Declaration, System


@cache
def systems() -> dict[str, System]:
    """All installed systems by name, in their declared order."""
    return _found()[0]


def broken() -> dict[str, str]:
    """Tracebacks of the modules that should declare a system and cannot be imported, by their last name."""
    return _found()[1]


def get(name: str) -> System:
    """The system of that name. Raises UnknownPlugin with the names that are installed here.

    A system in a module of its own name is found without importing the others. If that module cannot be imported, its
    error is raised.
    """
    for package in system_packages():
        if name == _last(package):
            importlib.import_module(package)
        elif has_module(package, name):
            system = _declared_in(f"{package}.{name}")
            if system is not None and system.name == name:
                return system
    try:
        return systems()[name]
    except KeyError:
        raise UnknownPlugin(f"no system {name!r} is installed here; there are: {', '.join(systems())}.") from None


def known(session: Session) -> list[Declaration]:
    """The systems installed here and those registered by workers of other hosts, in their order.

    An image holds the code of its own service alone, so that a command on the hub or the deployer cannot see the other
    systems by importing them. Of several registrations of a system the newest counts. A system that is removed is left
    out a day after its worker was last seen; a judge, for whose worker the gate waits however long it is away, only
    once an operator has had it forgotten (see ``forget``).
    """
    listed_since = clock(session) - LISTED_S
    rows = session.scalars(select(WorkerRow).order_by(WorkerRow.seen_at))
    registered = {row.system: (row.seen_at, Declaration.read(row)) for row in rows if row.declaration}
    found = {name: told for name, (seen_at, told) in registered.items() if told.is_judge or seen_at > listed_since}
    if not _are_registered(found):
        found |= {system.name: Declaration.of(system) for system in systems().values()}
    return sorted(found.values(), key=lambda declaration: (declaration.order, declaration.name))


def forget(tx: Transaction, name: str) -> None:
    """Forget a system that was removed, so that nothing waits for it unless a worker registers it again.

    Raises PreconditionFailed for a system that is installed here, that has a worker, or that none has registered.
    """
    if name in systems():
        raise PreconditionFailed(f"{name} is installed here: uninstall it first.")
    rows = [row for row in tx.session.scalars(select(WorkerRow).where(WorkerRow.system == name)) if row.declaration]
    if not rows:
        raise PreconditionFailed(f"no worker has registered a system {name!r}.")
    for row in rows:
        if row.state not in ABSENT and row.seen_at > tx.now - PRESENT_S:
            raise PreconditionFailed(
                f"worker {row.name} was seen {tx.now - row.seen_at:.0f} s ago: stop it, or wait {PRESENT_S:.0f} s."
            )
        row.declaration = {}


def judges(session: Session) -> list[str]:
    """The systems whose verdict on a checkpoint the deployment gate requires."""
    return [declaration.name for declaration in known(session) if declaration.is_judge]


def per_checkpoint(session: Session) -> list[str]:
    """The systems that give a verdict on every checkpoint, in their order."""
    return [declaration.name for declaration in known(session) if declaration.per_checkpoint]


def _are_registered(found: Collection[str]) -> bool:
    """Whether all modules that may declare a system here are among these names.

    Then none needs to be imported, which takes a second; the workers' registrations are enough.
    """
    try:
        modules = [module for package in system_packages() for module in _modules(package)]
    except Exception:  # noqa: BLE001 -- ``broken`` returns packages that cannot be imported
        return False
    return all(_last(module) in found for module in modules)


@cache
def _found() -> tuple[dict[str, System], dict[str, str]]:
    found, failed = [], {}
    for package in system_packages():
        try:
            modules = _modules(package)
        except Exception:  # noqa: BLE001 -- whatever a plug-in raises, the others are found, and ``broken`` returns it
            failed[_last(package) or package] = traceback.format_exc()
            continue
        for module in modules:
            try:
                system = _declared_in(module)
            except Exception:  # noqa: BLE001 -- as above
                failed[_last(module)] = traceback.format_exc()
                continue
            if system is not None:
                found.append(system)
    found.sort(key=lambda system: (system.order, system.name))
    return {system.name: system for system in found}, failed


def _modules(package_name: str) -> list[str]:
    package = importlib.import_module(package_name)
    if not hasattr(package, "__path__"):
        raise ImportError(
            f"{package_name} is a module: an entry point of ratchet.systems names a package, with a module a system"
        )
    return [
        f"{package_name}.{name}" for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    ]


def _declared_in(module_name: str) -> System | None:
    declared = getattr(importlib.import_module(module_name), "SYSTEM", None)
    return declared if isinstance(declared, System) else None


def _last(module: str) -> str:
    return module.rpartition(".")[2]
