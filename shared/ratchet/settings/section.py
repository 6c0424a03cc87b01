"""The base of every section: immutable, and an unknown key is an error."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr


class Section(BaseModel):
    """A section of the settings tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def reveal(settings: BaseModel) -> dict[str, Any]:
    """A JSON-ready tree from which the same settings can be built. It holds secrets: never log or store it."""
    plain: dict[str, Any] = settings.model_dump(mode="json")
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            plain[name] = value.get_secret_value()
        elif isinstance(value, BaseModel):
            plain[name] = reveal(value)
    return plain


def environment(settings: BaseModel) -> dict[str, str]:
    """Environment variables from which another Ratchet process reads the same settings. They hold secrets too."""
    plain = reveal(settings)
    return {
        f"RATCHET_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in plain.items()
    }
