"""The ledger's form of rates by level: ``{family: {level: [correct, n]}}``, levels as strings, as JSON wants keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ratchet.evaluation.rate import LevelRates, Rate


def from_json(by_level: Mapping[str, Mapping[str, Sequence[int]]]) -> LevelRates:
    """Rates as they stand in a row of the ledger."""
    return {
        (family, int(level)): Rate(correct=counts[0], n=counts[1])
        for family, levels in by_level.items()
        for level, counts in levels.items()
    }
