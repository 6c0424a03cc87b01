"""What one check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """``bad`` stops a run; a ``note`` is worth a look; either says how to mend it."""

    check: str
    state: State
    text: str
