from __future__ import annotations

import numpy as np
import pytest
from evaluator.loss_check import LossPairs, loss_pairs, loss_rises
from evaluator.regression import judge_regression
from ratchet.evaluation.record import Evaluation, in_test_split
from ratchet.settings.regression import RegressionSettings

from tests.support.records import evaluation

SETTINGS = RegressionSettings()
GRADES = {("sum", 1): [True] * 100, ("sum", 2): [False] * 100}


def with_loss(name: str, losses: dict[int, float | None]) -> Evaluation:
    """The same answers everywhere; the loss of the right ones by level."""
    record = evaluation(name, GRADES)
    items = tuple(item.model_copy(update={"gold_nll": losses[item.level]}) for item in record.items)
    return record.model_copy(update={"items": items})


def pairs(rise: float, spread: float, n: int = 150, seed: int = 0) -> dict[str, LossPairs]:
    rng = np.random.default_rng(seed)
    before = rng.exponential(0.3, n)
    after = before + rise + rng.normal(0, spread, n)
    return {"champion": LossPairs(before=tuple(before), after=tuple(after))}


def test_only_learnt_levels_of_the_testing_half_count() -> None:
    found = loss_pairs(with_loss("a", {1: 0.1, 2: 5.0}), with_loss("b", {1: 0.2, 2: 9.0}), SETTINGS)
    assert set(found.before) == {0.1}
    assert len(found.before) == sum(in_test_split(i.item_id) for i in evaluation("a", GRADES).items if i.level == 1)


def test_a_rise_beyond_the_margin_is_a_warning_though_no_answer_changed() -> None:
    champion, worse = with_loss("champion", {1: 0.1, 2: 5.0}), with_loss("new", {1: 0.3, 2: 5.0})
    verdict = judge_regression(worse, champion, None, SETTINGS)
    assert verdict.severity == "warning"
    assert verdict.overall.severity == "none"
    assert verdict.forgotten == ()
    assert "0.100 to 0.300 nats a token against champion" in verdict.reason
    assert judge_regression(champion, champion, None, SETTINGS).severity == "none"


def test_loss_that_falls_and_loss_that_rises_where_nothing_was_learnt_are_no_harm() -> None:
    champion = with_loss("champion", {1: 0.3, 2: 5.0})
    assert judge_regression(with_loss("new", {1: 0.1, 2: 9.0}), champion, None, SETTINGS).severity == "none"


def test_records_without_losses_are_judged_by_their_answers_alone() -> None:
    champion, new = with_loss("champion", {1: None, 2: None}), with_loss("new", {1: 0.4, 2: 1.0})
    verdict = judge_regression(new, champion, None, SETTINGS)
    assert (verdict.severity, verdict.losses) == ("none", ())


def test_one_item_gone_wild_proves_nothing() -> None:
    calm = pairs(0.0, 0.01)["champion"]
    wild = LossPairs(before=calm.before, after=(1e6, *calm.after[1:]))
    (rise,) = loss_rises({"champion": wild}, SETTINGS.loss_rise)
    assert rise.p > 0.05


def test_the_level_of_the_test_at_its_margin() -> None:
    p = [loss_rises(pairs(0.05, 0.2, seed=seed), 0.05)[0].p for seed in range(400)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=2.6 * np.sqrt(0.05 * 0.95 / 400))


def test_too_few_items_are_not_tested() -> None:
    assert loss_rises(pairs(3.0, 0.1, n=19), 0.05) == []


def test_how_far_the_loss_may_rise_is_set() -> None:
    champion, worse = with_loss("champion", {1: 0.1, 2: 5.0}), with_loss("new", {1: 0.3, 2: 5.0})
    settings = [RegressionSettings(loss_rise=rise) for rise in (0.05, 0.25)]
    assert [judge_regression(worse, champion, None, each).severity for each in settings] == ["warning", "none"]


def test_which_levels_count_as_learnt_is_set() -> None:
    half = {("sum", 1): [place % 2 == 0 for place in range(100)]}
    record = evaluation("a", half)
    known = record.model_copy(update={"items": tuple(i.model_copy(update={"gold_nll": 0.1}) for i in record.items)})
    counted = [len(loss_pairs(known, known, RegressionSettings(loss_mastery=m)).before) for m in (0.1, 0.9)]
    assert counted[0] > counted[1] == 0
