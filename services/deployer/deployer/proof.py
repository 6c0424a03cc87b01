"""What the gate has proved, as values that carry their own numbers. Effects and margins are fractions of 1."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from ratchet.stats.proportions import Interval


class Value(BaseModel):
    """A frozen part of a decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TargetProof(Value):
    """The whole confirm suite: is the challenger better? ``p`` is the exact one-sided McNemar test's."""

    n: int
    gains: int
    losses: int
    effect: float
    interval: Interval
    p: float
    alpha: float
    proved: bool


class FamilyProof(Value):
    """One protected family, its mastered levels pooled: is the challenger not worse by ``margin`` or more?

    ``enough`` says whether the pool reaches ``items_needed``; below it ``alpha`` is relaxed, and ``rule`` is
    ``no_net_loss`` where so few items could prove nothing even without a single flip.
    """

    family: str
    levels: tuple[int, ...]
    n: int
    items_needed: int
    enough: bool
    gains: int
    losses: int
    effect: float
    lower_bound: float
    margin: float
    rule: Literal["non_inferiority", "no_net_loss"]
    p: float
    alpha: float
    safe: bool


class LevelHarm(Value):
    """One level: is the challenger proved worse? ``p_holm`` is corrected for all levels of the suite."""

    family: str
    level: int
    n: int
    gains: int
    losses: int
    p: float
    p_holm: float
    harmed: bool


class Evidence(Value):
    """Everything the gate looked at in one challenge."""

    champion: str
    challenger: str
    k: int
    alpha_k: float
    target: TargetProof
    families: tuple[FamilyProof, ...]
    unprotected: tuple[str, ...]
    levels: tuple[LevelHarm, ...]
    smoke_passed: bool


class Promote(Value):
    """The challenger is proved better, and safe. ``reason`` is for people."""

    decision: Literal["promote"] = "promote"
    evidence: Evidence
    reason: str


class Refuse(Value):
    """Something was not proved; each of ``reasons`` is one sentence."""

    decision: Literal["refuse"] = "refuse"
    evidence: Evidence
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        return " ".join(self.reasons)


Decision = Annotated[Promote | Refuse, Field(discriminator="decision")]
