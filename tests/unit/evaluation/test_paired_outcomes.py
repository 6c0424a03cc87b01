from __future__ import annotations

import pytest
from ratchet.errors import EmptyEvaluation, NotComparable
from ratchet.evaluation.paired_outcomes import CellOutcomes, outcome_table, score_table, total_of
from ratchet.evaluation.record import Evaluation

from tests.support.records import evaluation

before = evaluation("a", {("sum", 1): [True, True, False], ("sort", 2): [False, True]})
after = evaluation("b", {("sum", 1): [True, False, True], ("sort", 2): [True, True]})


def test_counts_gains_and_losses_by_cell() -> None:
    assert outcome_table(before, after) == (
        CellOutcomes(family="sort", level=2, n=2, gains=1, losses=0),
        CellOutcomes(family="sum", level=1, n=3, gains=1, losses=1),
    )


def test_swapping_the_records_swaps_gains_and_losses() -> None:
    forth, back = total_of(outcome_table(before, after)), total_of(outcome_table(after, before))
    assert (forth.gains, forth.losses) == (back.losses, back.gains)
    assert forth.effect == -back.effect == pytest.approx(1 / 5)
    assert forth.discordant_share == pytest.approx(3 / 5)


def test_counts_only_the_items_asked_for() -> None:
    table = outcome_table(before, after, lambda item_id: item_id.startswith("sort"))
    assert [cell.family for cell in table] == ["sort"]


def test_no_common_items_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation, match="a and b"):
        outcome_table(before, after, lambda _: False)


def test_records_of_different_suites_are_not_compared() -> None:
    other = evaluation("c", {("sum", 1): [True, True, False], ("sort", 2): [False, True]}, suite="other")
    with pytest.raises(NotComparable, match="suite"):
        outcome_table(before, other)


def test_items_without_a_score_are_counted_by_the_record_that_has_one() -> None:
    def judged(name: str, preferences: list[float | None]) -> Evaluation:
        plain = evaluation(name, {("letters", 1): [True] * len(preferences)})
        items = [
            item.model_copy(update={"metric": "judge", "correct": None, "preference": preference})
            for item, preference in zip(plain.items, preferences, strict=True)
        ]
        return plain.model_copy(update={"items": tuple(items)})

    (task,) = score_table(judged("a", [1, 0, 0.5, None, None]), judged("b", [1, 1, None, 1, None]))
    assert (task.n, task.unscored, task.only_before, task.only_after) == (2, 3, 1, 1)
    assert task.differences == (0, 1)
