"""Learning curves: accuracy by level over the training steps, a panel a family, with 95 % Wilson bands."""

from __future__ import annotations

from matplotlib.axes import Axes

from ratchet.report.facts import Facts
from ratchet.report.figure import drawing, level_colour, mark_deployments, percent_axis, to_svg
from ratchet.stats.wilson import wilson

MOST_COLUMNS = 3


def learning_curves(facts: Facts) -> str | None:
    """SVG, or None before the second judged checkpoint."""
    if len(facts.judged) < 2:
        return None
    families = facts.families
    columns = min(MOST_COLUMNS, len(families))
    rows = -(-len(families) // columns)
    with drawing(9.0, 2.7 * rows + 0.3) as figure:
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, family in zip(grid, families, strict=False):
            _panel(axes, facts, family)
        for axes in grid[len(families) :]:
            axes.set_visible(False)
        handles, labels = grid[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))
        return to_svg(figure, "Accuracy by level over training steps")


def _panel(axes: Axes, facts: Facts, family: str) -> None:
    looks = facts.judged
    levels = sorted({level for look in looks for name, level in look.levels if name == family})
    axes.set_title(family)
    axes.set_xlabel("training step")
    percent_axis(axes)
    mark_deployments(axes, live_steps(facts))
    for level in levels:
        known = [look for look in looks if (family, level) in look.levels]
        rates = [look.levels[family, level] for look in known]
        steps = [look.step for look in known]
        colour = level_colour(level, max(levels))
        bounds = [wilson(rate.correct, rate.n) for rate in rates]
        axes.fill_between(steps, [b.low for b in bounds], [b.high for b in bounds], color=colour, alpha=0.07, lw=0)
        axes.plot(steps, [rate.value for rate in rates], color=colour, label=f"level {level}", marker="o", ms=3)


def live_steps(facts: Facts) -> list[tuple[float, str]]:
    """Where trained checkpoints went live: (step, ``#5``)."""
    steps = {look.ordinal: look.step for look in facts.checkpoints}
    return [(steps[c.ordinal], f"#{c.ordinal}") for c in facts.changes if c.ordinal in steps and c.ordinal > 0]
