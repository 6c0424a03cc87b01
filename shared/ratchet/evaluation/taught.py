"""Which error classes are taught no more for now: lessons that did not make them rarer are not repeated without end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Flips = tuple[int, int]
"""Gains and losses: items that lost an error class, and items that came to show it."""


@dataclass(frozen=True)
class Taught:
    """A correction batch: the classes that it taught, and its newest measured flips by class."""

    classes: frozenset[str]
    flips: Mapping[str, Flips]


def stopped_classes(history: Sequence[Taught], patience: int, pause: int) -> dict[str, str]:
    """Classes that get no lessons for now, each with the reason. ``history`` has the oldest batch first.

    A class is stopped when the last ``patience`` measured batches that taught it did not make it rarer, gains and
    losses added up. It is tried again once ``pause`` correction batches have gone by without it.
    """
    measured: dict[str, list[Flips]] = defaultdict(list)
    last: dict[str, int] = {}
    for place, batch in enumerate(history):
        for name in batch.classes:
            last[name] = place
            if name in batch.flips:
                measured[name].append(batch.flips[name])
    stopped = {}
    for name, each in sorted(measured.items()):
        recent = each[-patience:]
        gains, losses = (sum(side) for side in zip(*recent, strict=True))
        rested = len(history) - 1 - last[name]
        if len(recent) == patience and gains <= losses and rested < pause:
            stopped[name] = f"{gains} gained, {losses} lost over {patience} correction batches"
    return stopped
