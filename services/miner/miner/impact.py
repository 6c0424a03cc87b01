"""Did a correction batch help? The fall of its error classes on the probe items, paired, with an interval.

For a class, every probe item of its family, at the levels that lessons were of, counts as showing it or not, before the
batch (in the record that was mined) and after. Counting all of these items, and not those alone that were wrong, keeps
clear of the regression to the mean: mistakes that were picked for being mistakes become fewer by themselves.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from pydantic import BaseModel, ConfigDict
from ratchet.stats.proportions import Interval

from miner.answered import Answered
from miner.mining import Limits


class ClassImpact(BaseModel):
    """One error class over ``items`` probe items of its family at the levels taught: ``before`` showed it, ``after``
    do; ``gains`` of them lost it, ``losses`` came to show it. ``fall`` bounds the fall of its rate (above 0: it became
    rarer)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error_class: str
    items: int
    before: int
    after: int
    gains: int
    losses: int
    fall: Interval

    @property
    def effect(self) -> float:
        """The fall of the rate itself."""
        return (self.gains - self.losses) / self.items


def shown(answered: Answered, limits: Limits) -> str | None:
    """The class that an answer shows: ``family:error``, ``family:low_margin`` where it is right but shaky, or none."""
    family = answered.cell[0]
    if answered.error:
        return f"{family}:{answered.error}"
    return f"{family}:low_margin" if answered.least_probability < limits.unsure else None


def impacts(
    before: Sequence[Answered],
    after: Sequence[Answered],
    classes: Iterable[str],
    limits: Limits,
    cells: Container[tuple[str, int]],
) -> list[ClassImpact]:
    """The impact on each class that the probe holds items of, by Tango's score interval (ratchet.stats.paired_tests).

    ``cells`` are the families and levels that were taught.
    """
    from ratchet.stats.paired_tests import difference_interval  # scipy; this alone needs it

    now = {answered.key: shown(answered, limits) for answered in after}
    was = {answered.key: shown(answered, limits) for answered in before}
    taught = {answered.key: answered.cell[0] for answered in before if answered.cell in cells}
    found = []
    for name in sorted(set(classes)):
        keys = [key for key, family in taught.items() if family == name.rpartition(":")[0] and key in now]
        if keys:
            gains = sum(was[key] == name != now[key] for key in keys)
            losses = sum(now[key] == name != was[key] for key in keys)
            found.append(
                ClassImpact(
                    error_class=name,
                    items=len(keys),
                    before=sum(was[key] == name for key in keys),
                    after=sum(now[key] == name for key in keys),
                    gains=gains,
                    losses=losses,
                    fall=difference_interval(gains, losses, len(keys)),
                )
            )
    return found
