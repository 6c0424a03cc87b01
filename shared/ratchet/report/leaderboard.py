"""The leaderboard as a picture: accuracy on the eval suite with its 95 % interval, a line a checkpoint."""

from __future__ import annotations

from matplotlib.ticker import PercentFormatter

from ratchet.cli.view.scene import Look
from ratchet.report.facts import Facts
from ratchet.report.figure import ACCENT, MUTED, WARM, drawing, to_svg
from ratchet.stats.wilson import wilson

MOST = 20


def best_first(facts: Facts) -> list[Look]:
    """The judged checkpoints by accuracy, the newer one first among equals."""
    return sorted(facts.judged, key=lambda look: (look.overall.value if look.overall else 0, look.ordinal))[::-1]


def leaderboard(facts: Facts) -> str | None:
    """SVG of the best, or None where nothing is judged."""
    looks = best_first(facts)[:MOST][::-1]
    if not looks:
        return None
    live = facts.live.desired if facts.live else None
    with drawing(9.0, 0.26 * len(looks) + 0.8) as figure:
        axes = figure.subplots()
        for place, look in enumerate(looks):
            assert look.overall is not None
            colour = WARM if look.ordinal == live else ACCENT
            bounds = wilson(look.overall.correct, look.overall.n)
            axes.plot([bounds.low, bounds.high], [place, place], color=colour, linewidth=5, alpha=0.25)
            axes.plot(look.overall.value, place, marker="o", markersize=6, color=colour)
        axes.set_yticks(range(len(looks)), [_name(look, live) for look in looks])
        axes.tick_params(axis="y", length=0, labelcolor=MUTED)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_xlabel("right on the eval suite, with the 95 % interval")
        axes.set_ylim(-0.7, len(looks) - 0.3)
        return to_svg(figure, "Leaderboard with intervals")


def _name(look: Look, live: int | None) -> str:
    return f"#{look.ordinal} live" if look.ordinal == live else f"#{look.ordinal}"
