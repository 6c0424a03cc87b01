"""Does the model know what it knows: reliability of the live checkpoint, and the calibration error over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ratchet.report.facts import Calibrated, Facts
from ratchet.report.figure import ACCENT, MUTED, drawing, percent_axis, to_svg

STAGES = {"raw": "as it comes", "tempered": "temperature", "isotonic": "isotonic", "platt_scaled": "Platt"}


def reliability(facts: Facts) -> str | None:
    """SVG of the live checkpoint's diagram (the newest's where it has none) and of ECE by checkpoint, or None."""
    shown = _shown(facts)
    if shown is None:
        return None
    with drawing(9.0, 3.0) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
        _diagram(left, shown)
        _history(right, facts)
        return to_svg(figure, "Reliability diagram and calibration error by checkpoint")


def write_png(numbers: Mapping[str, Any], label: str, file: Path) -> None:
    """A checkpoint's reliability diagram, and its risk by coverage, as a picture of their own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with drawing(9.0, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        _diagram(left, Calibrated(0, numbers))
        left.set_title(f"{label}: sure, and right")
        _coverage(right, numbers)
        figure.savefig(file, format="png", dpi=150, facecolor="white", metadata={"Software": None})


def _coverage(axes: Axes, numbers: Mapping[str, Any]) -> None:
    """How many answers are wrong if only the surest are given; a dotted line where the shipped threshold lies."""
    curve = numbers.get("curve", ())
    axes.plot([p["coverage"] for p in curve], [p["risk"] for p in curve], color=ACCENT, marker="o", ms=3)
    abstention = numbers.get("abstention")
    if abstention:
        axes.axvline(abstention["coverage"], color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)))
    axes.set_title("Wrong, if only the surest are answered")
    axes.set_xlabel("share answered")
    axes.set_ylabel("share wrong")
    percent_axis(axes)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _shown(facts: Facts) -> Calibrated | None:
    live = facts.live.desired if facts.live else None
    ranked = [c for c in facts.calibrations if c.numbers.get("diagram")]
    return next((c for c in ranked if c.ordinal == live), ranked[-1] if ranked else None)


def _diagram(axes: Axes, shown: Calibrated) -> None:
    bins: list[Mapping[str, Any]] = list(shown.numbers["diagram"])
    most = max(b["n"] for b in bins)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    sizes = [12 + 130 * b["n"] / most for b in bins]
    axes.plot([b["confidence"] for b in bins], [b["accuracy"] for b in bins], color=ACCENT, linewidth=1.0)
    axes.scatter([b["confidence"] for b in bins], [b["accuracy"] for b in bins], s=sizes, color=ACCENT, alpha=0.7)
    axes.set_title(f"#{shown.ordinal}: sure, and right")
    axes.set_xlabel("stated confidence")
    axes.set_ylabel("share right")
    percent_axis(axes)
    axes.set_xlim(-0.03, 1.03)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))


def _history(axes: Axes, facts: Facts) -> None:
    for stage, name in STAGES.items():
        known = [c for c in facts.calibrations if isinstance(c.numbers.get(stage), dict) and "ece" in c.numbers[stage]]
        if known:
            values = [c.numbers[stage]["ece"] for c in known]
            axes.plot([c.ordinal for c in known], values, marker="o", ms=3, label=name)
    axes.set_title("Calibration error (ECE) by checkpoint")
    axes.set_xlabel("checkpoint")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")
