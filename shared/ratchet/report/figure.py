"""The look of the report's figures: matplotlib, drawn to SVG whose text stays text and takes the page's font."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

INK, MUTED, GRID, ACCENT, WARM = "#1c2430", "#6b7686", "#e6e9ee", "#0f766e", "#c2410c"
SERIES = ("#0f766e", "#c2410c", "#4f46e5", "#a16207", "#be185d", "#0369a1", "#4d7c0f", "#6b7280")
LEVELS = mpl.colormaps["viridis"]

_LOOK: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ratchet",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.prop_cycle": cycler(color=SERIES),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@contextmanager
def drawing(width: float = 9.0, height: float = 3.0) -> Iterator[Figure]:
    """A figure of so many inches, in the report's look."""
    with mpl.rc_context(_LOOK):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, label: str) -> str:
    """The figure as an ``<svg>`` element that fills its column; ``label`` is read aloud instead of it."""
    buffer = io.StringIO()
    with mpl.rc_context(_LOOK):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def level_colour(level: int, levels: int) -> str:
    """Dark for easy levels, light for hard ones."""
    place = (level - 1) / max(levels - 1, 1)
    return str(mpl.colors.to_hex(LEVELS(0.05 + 0.8 * place)))


def percent_axis(axes: Axes) -> None:
    """Rates from 0 to 1 as per cent, with a little air."""
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])


def mark_deployments(axes: Axes, steps: Iterable[tuple[float, str]]) -> None:
    """A dotted line where a checkpoint went live."""
    for step, _name in steps:
        axes.axvline(step, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
