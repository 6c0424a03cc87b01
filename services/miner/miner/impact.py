"""Did a correction batch help? The fall of its error classes on the probe items, paired, with an interval.

For a class, every probe item of its family, at the levels that lessons were of, counts as showing it or not, before the
batch (in the record that was mined) and after. Counting all of these items, and not those alone that were wrong, keeps
clear of the regression to the mean: mistakes that were picked for being mistakes become fewer by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict
from ratchet.stats.interval import Interval

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


@dataclass(frozen=True)
class Taught:
    """A correction batch: the classes that it taught, and its newest measured impact by class."""

    classes: frozenset[str]
    impacts: Mapping[str, ClassImpact]


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
    """The impact on each class that the probe holds items of, by Tango's score interval (ratchet.stats.difference).

    ``cells`` are the families and levels that were taught.
    """
    from ratchet.stats.difference import difference_interval  # scipy; this alone needs it

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


def stopped_classes(history: Sequence[Taught], patience: int, pause: int) -> dict[str, str]:
    """Classes that get no lessons for now, each with the reason. ``history`` has the oldest batch first.

    A class is stopped when the last ``patience`` measured batches that taught it did not make it rarer, gains and
    losses added up. It is tried again once ``pause`` correction batches have gone by without it.
    """
    measured: dict[str, list[ClassImpact]] = defaultdict(list)
    last: dict[str, int] = {}
    for place, batch in enumerate(history):
        for name in batch.classes:
            last[name] = place
            if name in batch.impacts:
                measured[name].append(batch.impacts[name])
    stopped = {}
    for name, each in sorted(measured.items()):
        recent = each[-patience:]
        gains, losses = sum(i.gains for i in recent), sum(i.losses for i in recent)
        rested = len(history) - 1 - last[name]
        if len(recent) == patience and gains <= losses and rested < pause:
            stopped[name] = f"{gains} gained, {losses} lost over {patience} correction batches"
    return stopped
