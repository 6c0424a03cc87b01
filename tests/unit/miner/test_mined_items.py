from __future__ import annotations

from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st
from miner.mined_items import (
    Category,
    GradedAnswer,
    MinedItem,
    categorise,
    chosen,
    control_items,
    counts,
    follow_up,
    frontier_cells,
    mine,
    mined_item,
    retest_sample,
    weakest_first,
    within_reach,
)
from ratchet.data.example import Example
from ratchet.evaluation.record import ItemRecord
from ratchet.inference.prompt_format import PromptFormat
from ratchet.tasks.graders import item_key

from tests.support.examples import made

ITEMS = made(count=8)


def answer(
    example: Example,
    error: str | None = "wrong",
    mean: float = 0.5,
    least: float | None = None,
    gold_nll: float | None = None,
) -> GradedAnswer:
    """An answer of this error class, None where it is right."""
    return GradedAnswer(
        example=example,
        key=item_key(example),
        answer="said",
        error=error,
        mean_probability=mean,
        least_probability=mean if least is None else least,
        gold_nll=gold_nll,
    )


@pytest.mark.parametrize(
    ("error", "mean", "least", "category"),
    [
        ("wrong", 0.5, 0.5, "wrong"),
        ("wrong", 0.91, 0.91, "overconfident_wrong"),
        ("wrong", 0.9, 0.9, "overconfident_wrong"),
        ("wrong", 0.63, 0.4, "wrong"),
        ("empty", 0.0, 0.0, "wrong"),
        (None, 0.9, 0.49, "low_margin"),
        (None, 0.6, 0.5, None),
        (None, 1.0, 1.0, None),
    ],
)
def test_answers_are_put_into_categories(
    error: str | None, mean: float, least: float, category: Category | None
) -> None:
    assert categorise(answer(ITEMS[0], error, mean, least)) == category


def test_an_item_that_an_earlier_champion_had_right_is_forgotten_at_any_confidence() -> None:
    assert categorise(answer(ITEMS[0], "wrong", 0.95), was_right=True) == "forgotten"
    assert categorise(answer(ITEMS[0], None), was_right=True) is None


def test_a_wrong_variant_of_a_right_item_is_unstable() -> None:
    assert categorise(answer(ITEMS[0], "carry", 0.95), is_variant=True) == "unstable"
    assert categorise(answer(ITEMS[0], None, 0.9, 0.3), is_variant=True) == "low_margin"


def test_right_answers_follow_wrong_ones_and_take_at_most_a_tenth() -> None:
    shaky = [mined_item(answer(item, None, 0.9, 0.01), "low_margin") for item in made(count=40)]
    stale = [mined_item(answer(item, "wrong"), "wrong", times_mined=9) for item in made(level=2, count=12)]
    assert [item.category for item in chosen([*shaky, *stale], 10)] == ["wrong"] * 10
    assert counts(chosen([*shaky, *stale], 20)) == {"wrong": 12, "low_margin": 2}
    assert counts(chosen([*shaky, *stale], 300)) == {"wrong": 12, "low_margin": 30}


def record(correct: bool, said: str, probabilities: tuple[float, ...]) -> ItemRecord:
    return ItemRecord(
        item_id=ITEMS[0].id,
        key=item_key(ITEMS[0]),
        family="chain_sum",
        level=1,
        answer=said,
        extracted=said,
        extraction="ok",
        correct=correct,
        token_logprobs=tuple(map(log, probabilities)),
        finish_reason="stop",
        latency_s=0.0,
    )


def test_an_answer_is_read_from_a_record() -> None:
    wrong = GradedAnswer.of_record(ITEMS[0], record(False, "1+1=", (0.5, 0.125)), PromptFormat())
    assert wrong.error == "truncated"
    assert (wrong.mean_probability, wrong.least_probability) == pytest.approx((0.25, 0.125))
    right = GradedAnswer.of_record(ITEMS[0], record(True, str(ITEMS[0].answer), ()), PromptFormat())
    assert (right.error, right.mean_probability) == (None, 0.0)


def test_whether_an_answer_is_right_is_taken_from_the_record() -> None:
    assert GradedAnswer.of_record(ITEMS[0], record(True, "said", (0.5,)), PromptFormat()).is_right
    assert (
        GradedAnswer.of_record(ITEMS[0], record(False, str(ITEMS[0].answer), (0.5,)), PromptFormat()).error == "wrong"
    )


def test_the_loss_of_the_right_answer_is_read_from_a_record() -> None:
    scored = record(False, "1+1=", (0.5,)).model_copy(update={"gold_nll": 2.5})
    assert GradedAnswer.of_record(ITEMS[0], scored, PromptFormat()).gold_nll == 2.5


def test_items_are_ordered_forgotten_then_wrong_by_loss_then_low_margin() -> None:
    answers = [
        answer(ITEMS[0], None, 0.5, 0.1),
        answer(ITEMS[1], mean=0.95, gold_nll=0.2),
        answer(ITEMS[2], mean=0.2, gold_nll=3.0),
        answer(ITEMS[3], None, 0.9, 0.9),
        answer(ITEMS[4], mean=0.1, gold_nll=0.1),
    ]
    found = mine(answers, {}, {item_key(ITEMS[4])})
    assert [each.example for each in found] == [ITEMS[4], ITEMS[2], ITEMS[1], ITEMS[0]]
    assert counts(found) == {"forgotten": 1, "overconfident_wrong": 1, "wrong": 1, "low_margin": 1}
    assert found[1].answer == "said"


def test_an_answer_without_a_gold_loss_is_last_among_the_wrong_ones() -> None:
    answers = [answer(ITEMS[0]), answer(ITEMS[1], gold_nll=0.01), answer(ITEMS[2], None, 0.5, 0.01)]
    assert [each.example for each in mine(answers, {})] == [ITEMS[1], ITEMS[0], ITEMS[2]]


def test_items_mined_before_follow_new_ones() -> None:
    stubborn = item_key(ITEMS[0])
    found = mine([answer(each) for each in ITEMS], {stubborn: 3})
    assert found[-1].key == stubborn


def test_only_levels_within_reach_and_forgotten_items_are_kept() -> None:
    (hard,), (unseen,), (lost,) = (made(level=level) for level in (3, 4, 5))
    found = mine([answer(each) for each in (ITEMS[0], hard, unseen, lost)], {}, {item_key(lost)})
    near = within_reach(found, {("chain_sum", 1): 0.2, ("chain_sum", 3): 0.19})
    assert [each.example for each in near] == [lost, ITEMS[0]]


def test_a_key_found_twice_is_handed_on_once_at_its_weakest() -> None:
    one, other = (mined_item(answer(ITEMS[0], gold_nll=loss), "wrong") for loss in (0.2, 0.7))
    assert weakest_first([one, other]) == [other]


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1.0)), min_size=len(ITEMS), max_size=len(ITEMS)))
def test_every_wrong_answer_is_found(marks: list[tuple[bool, float]]) -> None:
    answers = [answer(each, None if ok else "wrong", p) for each, (ok, p) in zip(ITEMS, marks, strict=True)]
    assert {a.key for a in answers if not a.is_right} <= {found.key for found in mine(answers, {})}


def test_levels_that_are_neither_out_of_reach_nor_mastered_are_searched() -> None:
    rates = {("reverse", 1): 0.81, ("reverse", 2): 0.8, ("chain_sum", 3): 0.2, ("chain_sum", 4): 0.19}
    assert frontier_cells(rates) == [("chain_sum", 3), ("reverse", 2)]


def mined(example: Example, category: Category = "wrong") -> MinedItem:
    return MinedItem(example=example, key=item_key(example), category=category, answer="said", weakness=1.0)


SUMS = [mined(each) for each in made("reverse", 2, 6)] + [mined(each, "low_margin") for each in made(count=4)]


def test_mined_items_are_compared_with_random_ones() -> None:
    told = follow_up("c1", SUMS, [False] * 6 + [True] * 4, [True] * 8 + [False] * 2)
    assert told is not None
    assert (told.mined, told.mined_failed, told.random, told.random_failed) == (10, 6, 10, 2)
    assert told.by_category == {"low_margin": (0, 4), "wrong": (6, 6)}
    assert 0.4 in told.excess
    assert told.excess.low < 0.4 < told.excess.high


@pytest.mark.parametrize("sides", [([], [], [True]), (SUMS, [True] * 10, [])])
def test_a_follow_up_without_items_is_none(sides: tuple[list[MinedItem], list[bool], list[bool]]) -> None:
    assert follow_up("c1", *sides) is None


def test_controls_are_of_the_same_levels_and_not_excluded() -> None:
    forbidden = {item.key for item in SUMS} | {item_key(each) for each in made("reverse", 2, 50)}
    drawn = control_items(SUMS, forbidden, seed=3)
    assert sorted((str(each.family), each.level) for each in drawn) == sorted(item.cell for item in SUMS)
    assert not forbidden & {item_key(each) for each in drawn}
    assert drawn == control_items(SUMS, forbidden, seed=3)


def test_a_large_set_is_sampled_and_free_text_is_left_out() -> None:
    poem = mined(Example.ask("Write a poem.", "Roses.", gold="Roses.", grader="exact", family="essays"))
    assert retest_sample([poem, *SUMS], 99, seed=0) == SUMS
    assert len(retest_sample(SUMS, 3, seed=0)) == 3
