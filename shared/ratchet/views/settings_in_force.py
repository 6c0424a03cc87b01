"""Every setting in force with its default, where it comes from, and what it does. Secrets are masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, SecretStr
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import LockedSettingRow
from ratchet.settings import Settings
from ratchet.settings.origins import Origins, flat
from ratchet.settings.sources import is_section

MASKED = "**********"
LOCKED = {
    "base_model": ("locked.base_model",),
    "model_path": ("model.path",),
    "model_architecture": ("locked.model_architecture",),
    "max_context_length": ("locked.max_context_length",),
    "vocab_size": ("locked.vocab_size",),
}
"""The settings that a locked value belongs to, where its name is another."""

_PASSWORD = re.compile(r"(?<=://)([^/@\s:\"]*):[^/@\s\"]+@")


@dataclass(frozen=True)
class Setting:
    """One value, as JSON. ``origin`` is empty for a default. ``pending`` is the value that a restart would bring.

    ``locked`` is what the first run has written to the ledger.
    """

    name: str
    section: str
    value: str
    default: str
    is_changed: bool
    origin: str
    description: str
    is_secret: bool
    locked: str | None
    pending: str | None

    def matches(self, words: list[str]) -> bool:
        text = f"{self.name} {self.value} {self.description} {self.origin}".casefold()
        return all(word in text for word in words)


@dataclass(frozen=True)
class SectionInForce:
    """The settings of a section, with what the section is about."""

    name: str
    summary: str
    settings: tuple[Setting, ...]


def read_settings(session: Session, settings: Settings, origins: Origins) -> list[SectionInForce]:
    """All sections in their order; the settings without a section come first, as ``general``."""
    locked = _locked(session)
    defaults, kinds = flat(default_values(settings)), dict(_fields(type(settings)))
    found: dict[str, list[Setting]] = {}
    for name, value in _leaves(settings, kinds).items():
        section = name.partition(".")[0] if "." in name else ""
        found.setdefault(section, []).append(_setting(name, section, value, defaults, kinds, origins, locked))
    return [SectionInForce(name, _summary(settings, name), tuple(each)) for name, each in found.items()]


def locked_values(session: Session) -> list[LockedSettingRow]:
    """What the first run has fixed."""
    return list(session.scalars(select(LockedSettingRow).order_by(LockedSettingRow.name)))


def default_values(settings: Settings) -> dict[str, Any]:
    """The defaults of the same sections, as JSON."""
    defaults: dict[str, Any] = type(settings).model_construct().model_dump(mode="json")
    return defaults


def _leaves(settings: Settings, kinds: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The value of each field by dotted name; a field that is a table is one value."""
    tree = settings.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name in kinds:
        value: Any = tree
        for part in name.split("."):
            value = value[part]
        found[name] = value
    return found


def _fields(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, tuple[str, Any]]]:
    """Description and type of each field that is no section, by dotted name."""
    for name, info in kind.model_fields.items():
        if is_section(info.annotation):
            yield from _fields(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", (info.description or "", info.annotation)


def _setting(
    name: str,
    section: str,
    value: Any,
    defaults: Mapping[str, Any],
    kinds: Mapping[str, tuple[str, Any]],
    origins: Origins,
    locked: Mapping[str, str],
) -> Setting:
    description, kind = kinds[name]
    default = _below(defaults, name)
    return Setting(
        name=name,
        section=section,
        value=_shown(value),
        default=_shown(default),
        is_changed=value != default,
        origin=", ".join(dict.fromkeys(_origins(origins.by_name, name))),
        description=description,
        is_secret=SecretStr in (kind, *getattr(kind, "__args__", ())),
        locked=locked.get(name),
        pending=_shown(_below(origins.pending, name)) if _has(origins.pending, name) else None,
    )


def _origins(by_name: Mapping[str, str], name: str) -> Iterator[str]:
    if name in by_name:
        yield by_name[name]
    yield from (origin for other, origin in by_name.items() if other.startswith(f"{name}."))


def _has(leaves: Mapping[str, Any], name: str) -> bool:
    return name in leaves or any(other.startswith(f"{name}.") for other in leaves)


def _below(leaves: Mapping[str, Any], name: str) -> Any:
    """The value of a field from the leaves of a tree: a table is put together again."""
    if name in leaves:
        return leaves[name]
    return {other[len(name) + 1 :]: value for other, value in leaves.items() if other.startswith(f"{name}.")}


def _shown(value: Any) -> str:
    return _PASSWORD.sub(rf"\1:{MASKED}@", json.dumps(value, ensure_ascii=False))


def _summary(settings: Settings, section: str) -> str:
    if not section:
        return ""
    return " ".join((getattr(settings, section).__doc__ or "").strip().split("\n\n")[0].split())


def _locked(session: Session) -> dict[str, str]:
    return {name: row.value for row in locked_values(session) for name in LOCKED.get(row.name, (row.name,))}
