"""The ledger's form of rates by level: ``{family: {level: [correct, n]}}``, levels as strings, as JSON wants keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.evaluation.rate import LevelRates, Rate

ByLevel = dict[str, dict[str, list[int]]]


def to_json(rates: LevelRates) -> ByLevel:
    """Rates as they stand in a row of the ledger."""
    by_level: ByLevel = {}
    for (family, level), rate in sorted(rates.items()):
        by_level.setdefault(family, {})[str(level)] = [rate.correct, rate.n]
    return by_level


def from_json(by_level: Mapping[str, Mapping[str, Sequence[int]]]) -> LevelRates:
    """The inverse of to_json."""
    return {
        (family, int(level)): Rate(correct=counts[0], n=counts[1])
        for family, levels in by_level.items()
        for level, counts in levels.items()
    }
