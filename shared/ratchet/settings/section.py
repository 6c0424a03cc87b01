"""The base of every section: immutable, and an unknown key is an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the settings tree."""

    model_config = ConfigDict(frozen=True, extra="forbid")
