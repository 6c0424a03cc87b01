"""When a checkpoint is the best so far on a task."""

from __future__ import annotations

import math

import pytest
from datagen.task_progress import Gain, compare, gain_of, is_better
from ratchet.data.example import Example
from ratchet.evaluation.record import ItemRecord

from tests.support.home import made_up_answer

CLEAR, NOISE, LOSS = Gain(0.2, 0.1), Gain(0.05, 0.1), Gain(-0.2, 0.1)


def items(rights: list[bool], losses: list[float | None]) -> dict[str, ItemRecord]:
    made = {}
    for place, (right, loss) in enumerate(zip(rights, losses, strict=True)):
        row = Example.ask(f"question {place}", "yes", family="menus", key=str(place))
        made[str(place)] = made_up_answer(row, right, 0.9).model_copy(update={"gold_nll": loss})
    return made


@pytest.mark.parametrize(
    ("score", "loss_fall", "better"),
    [
        (CLEAR, LOSS, True),
        (NOISE, CLEAR, True),
        (NOISE, NOISE, False),
        (LOSS, CLEAR, False),
        (NOISE, LOSS, False),
        (Gain(0.0, 0.0), Gain(0.0, 0.0), False),
    ],
)
def test_better_by_its_score_or_by_its_loss_alone_where_the_score_stays(
    score: Gain, loss_fall: Gain, better: bool
) -> None:
    assert is_better(score, loss_fall) == better


def test_gains_are_paired_by_item_and_those_without_a_measure_are_left_out() -> None:
    before, after = items([False] * 4, [2.0, 2.0, None, 1.0]), items([True, True, False, False], [1.0, 1.5, 1.0, 1.0])
    score, loss_fall = compare(before, after)
    assert score == Gain(0.5, pytest.approx(math.sqrt(1 / 3 / 4)))
    assert loss_fall.mean == pytest.approx((1.0 + 0.5 + 0.0) / 3)


def test_scores_of_two_metrics_are_not_compared() -> None:
    before, after = items([True] * 4, [2.0] * 4), items([False] * 4, [1.0] * 4)
    now = {key: item.model_copy(update={"metric": "loss", "correct": None}) for key, item in after.items()}
    assert compare(before, now) == (gain_of([]), gain_of([]))


def test_of_one_item_nothing_is_known() -> None:
    assert not gain_of([1.0]).is_clear
    assert not gain_of([]).is_clear
