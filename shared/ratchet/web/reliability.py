"""A reliability diagram as numbers for an SVG: stated confidence against the share of right answers, before and after.

The drawing is a square of 100 × 100 with its origin at the bottom left; the template only copies coordinates, so that
nothing is styled inline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any


@dataclass(frozen=True)
class Point:
    """A bin: its place in the drawing, its radius by the number of its items, and its numbers for the table."""

    x: float
    y: float
    radius: float
    items: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Diagram:
    """``raw`` is by the model's own probabilities, ``after`` with the temperature. ``threshold`` may be None."""

    raw: tuple[Point, ...]
    after: tuple[Point, ...]
    raw_line: str
    after_line: str
    threshold: float | None


def diagram_of(numbers: Mapping[str, Any]) -> Diagram | None:
    """The diagram of a calibration's numbers; None where there is none."""
    if not numbers.get("shipped") or not numbers.get("diagram"):
        return None
    raw, after = (_points(numbers.get(name) or ()) for name in ("raw_diagram", "diagram"))
    return Diagram(raw, after, _line(raw), _line(after), numbers["shipped"].get("threshold"))


def _points(bins: Sequence[Mapping[str, Any]]) -> tuple[Point, ...]:
    most = max((each["n"] for each in bins), default=1)
    return tuple(
        Point(
            x=round(100 * each["confidence"], 2),
            y=round(100 - 100 * each["accuracy"], 2),
            radius=round(1.2 + 2.6 * sqrt(each["n"] / most), 2),
            items=each["n"],
            confidence=each["confidence"],
            accuracy=each["accuracy"],
        )
        for each in bins
    )


def _line(points: Sequence[Point]) -> str:
    return " ".join(f"{point.x},{point.y}" for point in points)
