from __future__ import annotations

from ratchet.evaluation.mastery import mastered_levels
from ratchet.evaluation.rate import Rate, level_rates

from tests.support.records import evaluation

record = evaluation(
    "a",
    {
        ("sum", 1): [True] * 10,
        ("sum", 2): [True] * 9 + [False],
        ("sum", 3): [True] * 8 + [False] * 2,
        ("sort", 1): [True] * 3,
        ("copy", 1): [False] * 10,
    },
)


def test_a_level_is_mastered_from_the_threshold_on_and_on_enough_items() -> None:
    assert mastered_levels(record, 0.9, fewest_items=5) == {"sum": frozenset({1, 2})}


def test_few_items_count_where_few_are_asked_for() -> None:
    assert mastered_levels(record, 0.9, fewest_items=3)["sort"] == frozenset({1})


def test_rates_by_level() -> None:
    rates = level_rates(record.items)
    assert rates["sum", 3] == Rate(correct=8, n=10)
    assert rates["sum", 3].value == 0.8
