"""Where a loss curve goes, as a person would say it who looks at its end."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev, variance
from typing import Literal

RECENT = 50
"""Points of the curve that are looked at and shown."""
_FEWEST = 8

Trend = Literal["falling", "level", "rising"]


def trend(losses: Sequence[float]) -> Trend | None:
    """The newer half of the last points against the older half; ``level`` within two standard errors.

    None of fewer than 8 points: they show nothing.
    """
    recent = losses[-RECENT:]
    if len(recent) < _FEWEST:
        return None
    older, newer = recent[: len(recent) // 2], recent[len(recent) // 2 :]
    change = fmean(newer) - fmean(older)
    error = sqrt(variance(older) / len(older) + variance(newer) / len(newer))
    if abs(change) <= 2 * error:
        return "level"
    return "falling" if change < 0 else "rising"


def spread(losses: Sequence[float]) -> float | None:
    """Standard deviation of the last points; None of fewer than two."""
    recent = losses[-RECENT:]
    return stdev(recent) if len(recent) > 1 else None
