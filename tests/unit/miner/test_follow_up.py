from __future__ import annotations

import pytest
from miner.follow_up import controls, follow_up, sample
from miner.mining import Category, MinedItem
from ratchet.data.example import Example
from ratchet.tasks.graders import item_key

from tests.support.examples import made


def mined(example: Example, category: Category = "wrong") -> MinedItem:
    return MinedItem(example=example, key=item_key(example), category=category, answer="said", weakness=1.0)


ITEMS = [mined(each) for each in made("reverse", 2, 6)] + [mined(each, "low_margin") for each in made(count=4)]


def test_mined_items_are_compared_with_random_ones() -> None:
    told = follow_up("c1", ITEMS, [False] * 6 + [True] * 4, [True] * 8 + [False] * 2)
    assert told is not None
    assert (told.mined, told.mined_failed, told.random, told.random_failed) == (10, 6, 10, 2)
    assert told.by_category == {"low_margin": (0, 4), "wrong": (6, 6)}
    assert 0.4 in told.excess
    assert told.excess.low < 0.4 < told.excess.high


@pytest.mark.parametrize("sides", [([], [], [True]), (ITEMS, [True] * 10, [])])
def test_nothing_is_not_compared(sides: tuple[list[MinedItem], list[bool], list[bool]]) -> None:
    assert follow_up("c1", *sides) is None


def test_controls_are_of_the_same_levels_and_none_is_forbidden() -> None:
    forbidden = {item.key for item in ITEMS} | {item_key(each) for each in made("reverse", 2, 50)}
    drawn = controls(ITEMS, forbidden, seed=3)
    assert sorted((str(each.family), each.level) for each in drawn) == sorted(item.cell for item in ITEMS)
    assert not forbidden & {item_key(each) for each in drawn}
    assert drawn == controls(ITEMS, forbidden, seed=3)


def test_of_a_large_set_some_are_drawn_and_free_text_is_not_compared() -> None:
    poem = mined(Example.ask("Write a poem.", "Roses.", gold="Roses.", grader="exact", family="essays"))
    assert sample([poem, *ITEMS], 99, seed=0) == ITEMS
    assert len(sample(ITEMS, 3, seed=0)) == 3
