"""The suites that are shipped, some others, and what happens to a model on them."""

from __future__ import annotations

from dataclasses import replace

from ratchet.cli.init import GPU_ITEMS
from ratchet.settings.judging import SuiteSettings

from benchmarks.gate.world import Cell, World

# Success rates of a champion half-way through its curriculum, and the share of items that are discordant by chance.
MASTERED, LEARNING = 0.96, 0.5
MASTERED_DISCORDANT, LEARNING_DISCORDANT = 0.05, 0.25


def _family(name: str, mastered: int, learning: int) -> list[Cell]:
    steady = Cell(name, 0, MASTERED, MASTERED_DISCORDANT / 2, MASTERED_DISCORDANT / 2, True)
    open_ = Cell(name, 0, LEARNING, LEARNING_DISCORDANT / 2, LEARNING_DISCORDANT / 2, False)
    cells = [steady] * mastered + [open_] * learning
    return [replace(cell, level=level) for level, cell in enumerate(cells, start=1)]


def equal(name: str, families: int, levels: int, eval_items: int, confirm_items: int) -> World:
    """Checkpoints as good as the champion: 5 % of items discordant in the mastered half, 25 % elsewhere."""
    cells = [c for f in range(families) for c in _family(f"family-{f + 1}", levels // 2, levels - levels // 2)]
    return World(name, tuple(cells), eval_items // len(cells), confirm_items // len(cells))


def better(world: World, gain: float = 0.05) -> World:
    """Better by ``gain`` over all, on the levels still being learnt; mastered levels stay as they are."""
    share = sum(not cell.is_mastered for cell in world.cells) / len(world.cells)
    return replace(world, cells=tuple(c if c.is_mastered else _shifted(c, gain / share) for c in world.cells))


def forgetting(world: World, drop: float = 0.05) -> World:
    """Still better by five points over all, and worse by ``drop`` on the mastered levels of the first family."""
    protected = world.cells[0].family
    hurt = [cell.is_mastered and cell.family == protected for cell in world.cells]
    learning = sum(not cell.is_mastered for cell in world.cells)
    gain = (0.05 * len(world.cells) + drop * sum(hurt)) / learning
    return replace(
        world,
        cells=tuple(
            replace(c, gains=0.015, losses=0.015 + drop) if h else c if c.is_mastered else _shifted(c, gain)
            for c, h in zip(world.cells, hurt, strict=True)
        ),
    )


def _shifted(cell: Cell, gain: float) -> Cell:
    discordant = cell.gains + cell.losses
    return replace(cell, gains=(discordant + gain) / 2, losses=(discordant - gain) / 2)


def defaults(name: str = "shipped", **sizes: int) -> World:
    """The suites as they are shipped: families, levels and sizes of the default settings, or those that are given."""
    suites = SuiteSettings(**sizes)
    levels = {len(family.levels) for family in suites.families}
    assert len(levels) == 1, "every family is shipped with as many levels"
    return equal(
        f"{name}: {len(suites.families)} families, {max(levels)} levels, eval {suites.eval_items:,}, "
        f"confirm {suites.confirm_items:,}",
        families=len(suites.families),
        levels=max(levels),
        eval_items=suites.eval_items,
        confirm_items=suites.confirm_items,
    )


SHIPPED = (
    defaults(),
    defaults("shipped, on a GPU", eval_items=GPU_ITEMS),
    equal("one family, 6 levels, confirm 900", families=1, levels=6, eval_items=300, confirm_items=900),
    equal("three families, 4 levels, confirm 900", families=3, levels=4, eval_items=300, confirm_items=900),
    equal("three families, 4 levels, confirm 1,200", families=3, levels=4, eval_items=300, confirm_items=1_200),
)
