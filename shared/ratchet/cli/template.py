"""The settings file that `ratchet init` writes: every setting with its meaning, the defaults commented out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ratchet.settings import Settings

HEAD = """\
# Settings of Ratchet. A line that begins with # is a default: take the # away to change it.
# The command line (--set queue.low_water=500) and the environment (RATCHET_QUEUE__LOW_WATER=500) go before this file.
# `ratchet config check` checks it, `ratchet config show` shows what is in force.
"""
WIDTH = 110

Chosen = Mapping[str, Mapping[str, Any]]


def render(chosen: Chosen) -> str:
    """The file's text, with these values (by section and field) in force."""
    lines = [HEAD]
    plain, sections = _split(Settings.model_fields)
    for name, field in plain.items():
        lines += _entry(name, field, {})
    for name, section in sections.items():
        lines += ["", *_wrapped(section.__doc__ or ""), f"[{name}]"]
        for field_name, field in section.model_fields.items():
            lines += _entry(field_name, field, chosen.get(name, {}))
    return "\n".join(lines) + "\n"


def _split(fields: Mapping[str, FieldInfo]) -> tuple[dict[str, FieldInfo], dict[str, type[BaseModel]]]:
    plain, sections = {}, {}
    for name, field in fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections[name] = kind
        else:
            plain[name] = field
    return plain, sections


def _entry(name: str, field: FieldInfo, chosen: Mapping[str, Any]) -> list[str]:
    lines = list(_wrapped(field.description or ""))
    if name in chosen:
        return [*lines, f"{name} = {toml(chosen[name])}"]
    default = field.get_default(call_default_factory=True)
    if default is None or default is PydanticUndefined or isinstance(default, SecretStr):
        return [*lines, f"# {name} ="]
    return [*lines, f"# {name} = {toml(default)}"]


def _wrapped(text: str) -> Iterator[str]:
    """Comment lines; only the first paragraph of a docstring."""
    line = "#"
    for word in text.strip().split("\n\n")[0].split():
        if len(line) + len(word) >= WIDTH:
            yield line
            line = "#"
        line += f" {word}"
    if line != "#":
        yield line


def toml(value: Any) -> str:
    """A value as TOML: JSON does for texts, numbers, booleans and lists; tables are written inline."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items() if inner is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(inner) for inner in value) + "]"
    if isinstance(value, Path | Enum):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)
