"""What mining found a checkpoint weak on, by category."""

from __future__ import annotations

from ratchet.report.facts import Facts
from ratchet.report.figure import SERIES, drawing, to_svg


def weaknesses(facts: Facts) -> str | None:
    """SVG: mined items of each checkpoint, stacked by category; None where nothing was mined."""
    mined = [m for m in facts.mined if sum(m.by_category.values())]
    if not mined:
        return None
    categories = sorted({name for m in mined for name in m.by_category})
    with drawing(9.0, 2.6) as figure:
        axes = figure.subplots()
        floor = [0.0] * len(mined)
        for name, colour in zip(categories, SERIES * 3, strict=False):
            counts = [m.by_category.get(name, 0) for m in mined]
            axes.bar(range(len(mined)), counts, bottom=floor, width=0.7, label=name.replace("_", " "), color=colour)
            floor = [low + count for low, count in zip(floor, counts, strict=True)]
        axes.set_xticks(range(len(mined)), [f"#{m.ordinal}" for m in mined])
        axes.grid(visible=False, axis="x")
        axes.set_ylabel("mined items")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return to_svg(figure, "Mined items by category")
