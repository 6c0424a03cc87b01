"""What the model was fed: the rows of each batch by family and level, and what mining and the gate found."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from ratchet.report.facts import BatchFacts, Facts
from ratchet.report.figure import SERIES, drawing, level_colour, to_svg

MOST_BATCHES = 40


def data_mix(facts: Facts) -> str | None:
    """SVG: shares of families in each batch above, of levels below; None where no batch passed the gate."""
    batches = [batch for batch in facts.batches if batch.levels][-MOST_BATCHES:]
    if not batches:
        return None
    families = sorted({family for batch in batches for family, _ in batch.levels})
    levels = sorted({level for batch in batches for _, level in batch.levels})
    with drawing(9.0, 4.4) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        _stack(above, batches, [_share_of_family(batches, name) for name in families], families, SERIES)
        colours = [level_colour(level, max(levels)) for level in levels]
        shares = [_share_of_level(batches, level) for level in levels]
        _stack(below, batches, shares, [f"level {level}" for level in levels], colours)
        above.set_title("Rows by family")
        below.set_title("Rows by level")
        below.set_xlabel("batches in the order in which they came (c: corrections, g: generated, u: from a user)")
        return to_svg(figure, "Rows of each batch by family and level")


def _stack(
    axes: Axes,
    batches: Sequence[BatchFacts],
    shares: Sequence[Sequence[float]],
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    floor = [0.0] * len(batches)
    for row, name, colour in zip(shares, names, colours, strict=False):
        axes.bar(range(len(batches)), row, bottom=floor, width=0.82, label=name, color=colour)
        floor = [low + share for low, share in zip(floor, row, strict=True)]
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xticks(range(len(batches)), [batch.origin[0] for batch in batches])
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _share_of_family(batches: Sequence[BatchFacts], family: str) -> list[float]:
    return [
        sum(n for (name, _), n in batch.levels.items() if name == family) / sum(batch.levels.values())
        for batch in batches
    ]


def _share_of_level(batches: Sequence[BatchFacts], wanted: int) -> list[float]:
    return [
        sum(n for (_, level), n in batch.levels.items() if level == wanted) / sum(batch.levels.values())
        for batch in batches
    ]
