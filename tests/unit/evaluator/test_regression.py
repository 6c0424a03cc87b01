from __future__ import annotations

import numpy as np
import pytest
from evaluator.regression import RegressionVerdict, judge_flips, judge_regression
from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.paired_outcomes import CellOutcomes
from ratchet.evaluation.record import in_test_split
from ratchet.settings.regression import RegressionSettings

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
    verdict = judge_flips("new", {"champion": cells}, SETTINGS)
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


def test_only_the_testing_half_testifies() -> None:
    champion = evaluation("champion", {("sum", 1): [True] * 200})
    worse = [in_test_split(item.item_id) for item in champion.items]
    new = evaluation("new", {("sum", 1): worse})
    assert judge_regression(new, champion, None, SETTINGS).severity == "none"


def test_the_smallest_visible_drop_shrinks_with_more_items() -> None:
    few = judge_flips("new", {"champion": table((2, 2), (2, 2), (2, 2))}, SETTINGS)
    more = {
        "champion": tuple(
            cell.model_copy(update={"n": 600, "gains": 20, "losses": 20}) for cell in table(*[(2, 2)] * 3)
        )
    }
    many = judge_flips("new", more, SETTINGS)
    assert few.smallest_visible_drop is not None
    assert many.smallest_visible_drop is not None
    assert many.smallest_visible_drop < few.smallest_visible_drop
    assert f"{few.smallest_visible_drop:.1%}" in few.reason


def test_three_items_see_nothing_and_say_so() -> None:
    lonely = (CellOutcomes(family="sum", level=1, n=3, gains=0, losses=1),)
    verdict = judge_flips("new", {"champion": lonely}, SETTINGS)
    assert verdict.smallest_visible_drop is None
    assert "no drop could have been seen" in verdict.reason


def test_no_item_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation):
        judge_regression(evaluation("new", {}), evaluation("champion", {}), None, SETTINGS)


def test_a_verdict_survives_json() -> None:
    verdict = judge_flips("new", {"champion": table((0, 9), (1, 2), (0, 2))}, SETTINGS)
    assert RegressionVerdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_more_losses_never_lighten_the_verdict() -> None:
    ranks = ["none", "warning", "critical"]
    severities = [
        judge_flips("new", {"champion": table((3, losses), (2, 2), (1, 1))}, SETTINGS).severity
        for losses in range(3, 57)
    ]
    assert [ranks.index(s) for s in severities] == sorted(ranks.index(s) for s in severities)
    assert severities[0] == "none"
    assert severities[-1] == "critical"


def test_a_real_drop_of_the_stated_size_is_seen() -> None:
    rng = np.random.default_rng(3)
    size = judge_flips("new", {"c": table((4, 5), (4, 5), (4, 5))}, SETTINGS).smallest_visible_drop
    assert size is not None
    seen = 0
    for _ in range(100):
        flips = rng.multinomial(60, [0.075 - size / 2, 0.075 + size / 2, 0.85], size=3)
        seen += (
            judge_flips("new", {"c": table(*[(int(g), int(losses)) for g, losses, _ in flips])}, SETTINGS).severity
            != "none"
        )
    assert seen >= 68


def test_how_surely_a_drop_must_be_proved_is_set() -> None:
    cells = {"champion": table((2, 10), (2, 2), (2, 2))}
    told = [judge_flips("new", cells, RegressionSettings(alpha=alpha)).severity for alpha in (0.05, 0.4)]
    assert told == ["none", "critical"]


def test_which_drop_is_critical_is_set() -> None:
    cells = {"champion": tuple(cell.model_copy(update={"n": 600}) for cell in table((10, 35), (9, 20), (9, 20)))}
    told = [judge_flips("new", cells, RegressionSettings(critical_drop=drop)).severity for drop in (0.05, 0.001)]
    assert told == ["warning", "critical"]


def test_the_smallest_visible_drop_is_stated_for_a_chance_that_is_set() -> None:
    cells = {"champion": table((2, 2), (2, 2), (2, 2))}
    usual, strict = (judge_flips("new", cells, RegressionSettings(power=power)) for power in (0.8, 0.95))
    assert usual.smallest_visible_drop is not None
    assert strict.smallest_visible_drop is not None
    assert usual.smallest_visible_drop < strict.smallest_visible_drop
    assert "with 95%" in strict.reason
