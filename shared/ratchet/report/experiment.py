"""The curriculum's experiment: what each strategy gains for a token, with the range that holds it."""

from __future__ import annotations

from ratchet.report.facts import Facts
from ratchet.report.figure import ACCENT, MUTED, drawing, to_svg


def experiment(facts: Facts) -> str | None:
    """SVG: the arms that were tried, the best above; None before the first trial."""
    arms = facts.arms[::-1]
    if not arms:
        return None
    with drawing(9.0, 0.42 * len(arms) + 0.9) as figure:
        axes = figure.subplots()
        axes.axvline(0.0, color=MUTED, linewidth=0.9)
        for place, arm in enumerate(arms):
            axes.plot([arm.low, arm.high], [place, place], color=ACCENT, linewidth=6, alpha=0.25)
            axes.plot(arm.points, place, marker="o", markersize=7, color=ACCENT)
        names = [f"{arm.name} ({arm.trials} trials, best with {arm.best:.0%})" for arm in arms]
        axes.set_yticks(range(len(arms)), names)
        axes.tick_params(axis="y", length=0, labelcolor=MUTED)
        axes.set_ylim(-0.7, len(arms) - 0.3)
        axes.set_xlabel("points on the probe suite per 100,000 tokens, with the 95 % range")
        return to_svg(figure, "Gain of each strategy per 100,000 tokens")
