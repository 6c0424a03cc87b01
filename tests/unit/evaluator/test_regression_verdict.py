from __future__ import annotations

import numpy as np
import pytest
from evaluator.regression_verdict import (
    LossPairs,
    RegressionVerdict,
    judge_outcomes,
    judge_regression,
    loss_pairs,
    loss_rises,
)
from ratchet.evaluation.paired_outcomes import CellOutcomes, PairedScores
from ratchet.evaluation.record import GENERAL, Evaluation, Metric, in_test_split
from ratchet.settings.judging import RegressionSettings
from ratchet.stats.paired_tests import holm

from tests.support.records import evaluation

SETTINGS = RegressionSettings()
CELLS = [("sum", 1), ("sum", 2), ("sort", 1)]


def grades(*shares: float, n: int = 100) -> dict[tuple[str, int], list[bool]]:
    return {cell: [i < share * n for i in range(n)] for cell, share in zip(CELLS, shares, strict=True)}


def table(*cells: tuple[int, int]) -> tuple[CellOutcomes, ...]:
    return tuple(
        CellOutcomes(family=family, level=level, n=60, gains=gains, losses=losses)
        for (family, level), (gains, losses) in zip(sorted(CELLS), cells, strict=True)
    )


def test_the_same_answers_are_no_regression() -> None:
    champion = evaluation("champion", grades(0.9, 0.6, 0.8))
    verdict = judge_regression(evaluation("new", grades(0.9, 0.6, 0.8)), champion, None, SETTINGS)
    assert verdict.severity == "none"
    assert verdict.forgotten == ()
    assert all(drop.p == 1.0 for drop in verdict.drops)
    assert verdict.overall.n == sum(in_test_split(item.item_id) for item in champion.items)


def test_a_forgotten_family_is_critical_and_named() -> None:
    champion = evaluation("champion", grades(0.95, 0.6, 0.9))
    verdict = judge_regression(evaluation("new", grades(0.95, 0.9, 0.3)), champion, None, SETTINGS)
    assert verdict.severity == "critical"
    assert verdict.forgotten == ("sort",)
    assert "sort" in verdict.reason
    assert "champion" in verdict.reason
    assert verdict.overall.severity == "none"


def test_a_small_but_proved_drop_is_a_warning() -> None:
    cells = tuple(cell.model_copy(update={"n": 600}) for cell in table((10, 35), (9, 20), (9, 20)))
    verdict = judge_outcomes("new", {"champion": cells}, SETTINGS)
    assert verdict.severity == verdict.overall.severity == "warning"
    assert 0 < verdict.overall.drop_at_least < SETTINGS.critical_drop


def test_both_baselines_are_compared_and_one_is_not_compared_twice() -> None:
    champion, best = evaluation("champion", grades(0.5, 0.5, 0.5)), evaluation("best", grades(0.9, 0.9, 0.9))
    new = evaluation("new", grades(0.5, 0.5, 0.5))
    assert judge_regression(new, champion, champion, SETTINGS).severity == "none"
    verdict = judge_regression(new, champion, best, SETTINGS)
    assert verdict.severity == "critical"
    assert {drop.baseline for drop in verdict.drops} == {"champion", "best"}
    assert verdict.overall.baseline == "champion"
    assert {drop.baseline for drop in verdict.drops if drop.severity != "none"} == {"best"}


def test_only_the_test_split_decides() -> None:
    champion = evaluation("champion", {("sum", 1): [True] * 200})
    worse = [in_test_split(item.item_id) for item in champion.items]
    new = evaluation("new", {("sum", 1): worse})
    assert judge_regression(new, champion, None, SETTINGS).severity == "none"


def test_the_smallest_visible_drop_shrinks_with_more_items() -> None:
    few = judge_outcomes("new", {"champion": table((2, 2), (2, 2), (2, 2))}, SETTINGS)
    more = {
        "champion": tuple(
            cell.model_copy(update={"n": 600, "gains": 20, "losses": 20}) for cell in table(*[(2, 2)] * 3)
        )
    }
    many = judge_outcomes("new", more, SETTINGS)
    assert few.smallest_visible_drop is not None
    assert many.smallest_visible_drop is not None
    assert many.smallest_visible_drop < few.smallest_visible_drop
    assert f"{few.smallest_visible_drop:.1%}" in few.reason


def test_three_items_see_nothing_and_say_so() -> None:
    lonely = (CellOutcomes(family="sum", level=1, n=3, gains=0, losses=1),)
    verdict = judge_outcomes("new", {"champion": lonely}, SETTINGS)
    assert verdict.smallest_visible_drop is None
    assert "no drop could have been seen" in verdict.reason


def test_without_an_item_in_the_test_split_nothing_can_be_proved() -> None:
    """A user's few rows can all fall into the selection split."""
    verdict = judge_regression(evaluation("new", {}), evaluation("champion", {}), None, SETTINGS)
    assert (verdict.severity, verdict.overall, verdict.drops) == ("none", None, ())
    assert verdict.reason == "No drop is proved. With so few items no drop could have been seen."


def test_a_verdict_survives_json() -> None:
    verdict = judge_outcomes("new", {"champion": table((0, 9), (1, 2), (0, 2))}, SETTINGS)
    assert RegressionVerdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_more_losses_never_lighten_the_verdict() -> None:
    ranks = ["none", "warning", "critical"]
    severities = [
        judge_outcomes("new", {"champion": table((3, losses), (2, 2), (1, 1))}, SETTINGS).severity
        for losses in range(3, 57)
    ]
    assert [ranks.index(s) for s in severities] == sorted(ranks.index(s) for s in severities)
    assert severities[0] == "none"
    assert severities[-1] == "critical"


def test_a_real_drop_of_the_stated_size_is_seen() -> None:
    rng = np.random.default_rng(3)
    size = judge_outcomes("new", {"c": table((4, 5), (4, 5), (4, 5))}, SETTINGS).smallest_visible_drop
    assert size is not None
    seen = 0
    for _ in range(100):
        drawn = rng.multinomial(60, [0.075 - size / 2, 0.075 + size / 2, 0.85], size=3)
        seen += (
            judge_outcomes("new", {"c": table(*[(int(g), int(losses)) for g, losses, _ in drawn])}, SETTINGS).severity
            != "none"
        )
    assert seen >= 68


def test_the_level_of_the_test_follows_the_setting() -> None:
    cells = {"champion": table((2, 10), (2, 2), (2, 2))}
    told = [judge_outcomes("new", cells, RegressionSettings(alpha=alpha)).severity for alpha in (0.05, 0.4)]
    assert told == ["none", "critical"]


def test_the_critical_drop_follows_the_setting() -> None:
    cells = {"champion": tuple(cell.model_copy(update={"n": 600}) for cell in table((10, 35), (9, 20), (9, 20)))}
    told = [judge_outcomes("new", cells, RegressionSettings(critical_drop=drop)).severity for drop in (0.05, 0.001)]
    assert told == ["warning", "critical"]


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


def test_only_learnt_levels_of_the_test_split_count() -> None:
    found = loss_pairs(with_loss("a", {1: 0.1, 2: 5.0}), with_loss("b", {1: 0.2, 2: 9.0}))
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


def test_a_falling_loss_and_a_rise_on_unlearnt_levels_are_no_warning() -> None:
    champion = with_loss("champion", {1: 0.3, 2: 5.0})
    assert judge_regression(with_loss("new", {1: 0.1, 2: 9.0}), champion, None, SETTINGS).severity == "none"


def test_records_without_losses_are_judged_by_their_answers_alone() -> None:
    champion, new = with_loss("champion", {1: None, 2: None}), with_loss("new", {1: 0.4, 2: 1.0})
    verdict = judge_regression(new, champion, None, SETTINGS)
    assert (verdict.severity, verdict.losses) == ("none", ())


def test_one_outlier_proves_nothing() -> None:
    calm = pairs(0.0, 0.01)["champion"]
    wild = LossPairs(before=calm.before, after=(1e6, *calm.after[1:]))
    (rise,) = loss_rises({"champion": wild})
    assert rise.p > 0.05


def test_the_level_of_the_test_at_its_margin() -> None:
    p = [loss_rises(pairs(0.05, 0.2, seed=seed), 0.05)[0].p for seed in range(400)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=2.6 * np.sqrt(0.05 * 0.95 / 400))


def test_too_few_items_are_not_tested() -> None:
    assert loss_rises(pairs(3.0, 0.1, n=19), 0.05) == []


def test_levels_that_the_baseline_mostly_gets_wrong_do_not_count() -> None:
    half = {("sum", 1): [place % 2 == 0 for place in range(100)]}
    record = evaluation("a", half)
    known = record.model_copy(update={"items": tuple(i.model_copy(update={"gold_nll": 0.1}) for i in record.items)})
    counted = [len(loss_pairs(known, known, m).before) for m in (0.1, 0.9)]
    assert counted[0] > counted[1] == 0


def scores(change: float, metric: Metric = "loss", n: int = 60, family: str = "notes") -> PairedScores:
    """A task whose scores change by about this much; a rise of the loss is a negative change."""
    differences = change + 0.1 * np.random.default_rng(5).standard_normal(n)
    return PairedScores(
        family=family, metric=metric, n=n, before=1.5, after=1.5 - change, differences=tuple(map(float, differences))
    )


@pytest.mark.parametrize(
    ("change", "severity"), [(0.1, "none"), (-0.03, "none"), (-0.15, "warning"), (-0.4, "critical")]
)
def test_a_task_measured_by_loss_is_worse_where_its_loss_is_proved_to_have_risen(change: float, severity: str) -> None:
    verdict = judge_outcomes("new", {"champion": ()}, SETTINGS, scores={"champion": (scores(change),)})
    (drop,) = verdict.scores
    assert (drop.severity, verdict.severity, verdict.overall) == (severity, severity, None)
    assert verdict.forgotten == (() if severity == "none" else ("notes",))
    if severity != "none":
        assert f"notes loss 1.50 to {1.5 - change:.2f} nats a token against champion (60 items, p = " in verdict.reason
        assert 0 < drop.drop_at_least < -change


def test_graded_items_and_tasks_share_one_correction() -> None:
    cells = table((2, 12), (5, 5), (5, 5))
    alone = judge_outcomes("new", {"champion": cells}, SETTINGS)
    many = tuple(scores(0.0, family=f"notes{i}") for i in range(30))
    beside = judge_outcomes("new", {"champion": cells}, SETTINGS, scores={"champion": many})
    assert min(d.p_holm for d in alone.drops) <= SETTINGS.alpha < min(d.p_holm for d in beside.drops)


def test_each_comparison_keeps_its_own_p_under_the_correction() -> None:
    two = {name: pairs(rise, 0.2, seed=seed)["champion"] for seed, (name, rise) in enumerate([("c", 0.1), ("b", 0.08)])}
    tasks = {"c": (scores(-0.09),), "b": (scores(-0.11, family="menus"),)}
    verdict = judge_outcomes("new", {"c": table((1, 8), (2, 9), (3, 3))}, SETTINGS, two, tasks)
    found = [*verdict.drops, *verdict.losses, *verdict.scores]
    assert [each.p_holm for each in found] == holm([each.p for each in found])
    assert [(each.baseline, each.family) for each in verdict.scores] == [("c", "notes"), ("b", "menus")]
    assert len({each.p for each in [*verdict.losses, *verdict.scores]}) == 4


def test_the_drift_of_the_general_task_is_left_to_the_gate() -> None:
    verdict = judge_outcomes("new", {"champion": ()}, SETTINGS, scores={"champion": (scores(-0.4, family=GENERAL),)})
    assert (verdict.severity, verdict.scores) == ("none", ())
