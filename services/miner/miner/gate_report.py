"""What the data gate says of each row, and of a batch as a whole."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example

Reason = Literal[
    "unreadable",
    "schema",
    "unknown_question",
    "plugin",
    "gold",
    "leak",
    "near_leak",
    "duplicate",
    "near_duplicate",
    "epoch_cap",
    "too_long",
]
"""Why a row is in quarantine.

``unreadable``: not JSON, or of no known shape. ``schema``: no question, no answer, or not what the profile can dress.
``unknown_question``: the family does not know the question, or the row states another level, or a family or grader
that does not exist. ``plugin``: the family's or the profile's own code failed on it. ``gold``: the grader does not
accept the row's own answer. ``leak``, ``near_leak``: the item, or nearly its text, is held out. ``duplicate``,
``near_duplicate``: it is in this batch already. ``epoch_cap``: it has been trained on as often as allowed.
``too_long``: more tokens than allowed.
"""


class Accepted(BaseModel):
    """A row that may be trained on; its metadata carry family, level and item key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    example: Example
    tokens: int


class Quarantined(BaseModel):
    """A row that may not. ``example`` is None where the row could not be read; ``detail`` then names file and line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    line: int
    reason: Reason
    detail: str
    example: Example | None = None

    def to_line(self) -> str:
        """As one line of the quarantine file."""
        return self.model_dump_json()


class GateReport(BaseModel):
    """A batch at the gate: ``rows = accepted + sum(reasons)``. Levels stand as ``family/level``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    accepted: int
    tokens: int
    reasons: dict[str, int] = Field(default_factory=dict)
    levels: dict[str, int] = Field(default_factory=dict)
    exhausted: tuple[str, ...] = ()
    """Levels of which the epoch cap refused more rows than were accepted."""


class Tally:
    """Counts verdicts as they pass."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._levels: Counter[str] = Counter()
        self._capped: Counter[str] = Counter()
        self._tokens = 0

    def add(self, verdict: Accepted | Quarantined) -> None:
        if isinstance(verdict, Accepted):
            self._levels[_name(verdict.example)] += 1
            self._tokens += verdict.tokens
            return
        self._reasons[verdict.reason] += 1
        if verdict.reason == "epoch_cap" and verdict.example is not None:
            self._capped[_name(verdict.example)] += 1

    @property
    def report(self) -> GateReport:
        accepted = self._levels.total()
        return GateReport(
            rows=accepted + self._reasons.total(),
            accepted=accepted,
            tokens=self._tokens,
            reasons=dict(sorted(self._reasons.items())),
            levels=dict(sorted(self._levels.items())),
            exhausted=tuple(sorted(name for name, n in self._capped.items() if n > self._levels[name])),
        )


def _name(example: Example) -> str:
    return f"{example.family}/{example.level}"
