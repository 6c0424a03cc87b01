from __future__ import annotations

import pytest
from datagen.curriculum import LevelMastery, Mastery, plan_mix, update_mastery
from hypothesis import given
from hypothesis import strategies as st
from ratchet.evaluation.rate import Rate
from ratchet.settings.curriculum import CurriculumSettings

SETTINGS = CurriculumSettings()
FAMILIES = {"sum": (1, 2, 3, 4, 5)}


def mastering(*levels: int, family: str = "sum") -> Mastery:
    return Mastery(
        levels=tuple(LevelMastery(family=family, level=n, correct=10, n=10, is_mastered=True) for n in levels)
    )


def measured(correct: int, n: int = 100) -> dict[tuple[str, int], Rate]:
    return {("sum", 1): Rate(correct=correct, n=n)}


def test_a_level_is_won_at_the_threshold_and_lost_only_below_the_hysteresis() -> None:
    states = []
    mastery = Mastery()
    for correct in (89, 90, 86, 85, 84, 89, 91):
        mastery = update_mastery(mastery, measured(correct), SETTINGS)
        states.append(mastery.is_mastered("sum", 1))
    assert states == [False, True, True, True, False, False, True]


def test_too_few_items_change_nothing() -> None:
    assert not update_mastery(Mastery(), measured(4, n=4), SETTINGS).is_mastered("sum", 1)
    assert update_mastery(mastering(1), measured(0, n=4), SETTINGS).is_mastered("sum", 1)


def test_what_is_not_measured_keeps_its_state() -> None:
    after = update_mastery(mastering(2), measured(50), SETTINGS)
    assert after.is_mastered("sum", 2)
    assert not after.is_mastered("sum", 1)


def test_a_beginner_gets_the_first_level_and_a_look_at_the_second() -> None:
    mix = plan_mix(Mastery(), FAMILIES, {}, (), SETTINGS)
    assert mix.weights() == pytest.approx({("sum", 1): 5 / 6, ("sum", 2): 1 / 6})
    assert [share.role for share in mix.shares] == ["frontier", "lookahead"]


def test_the_frontier_gets_half_and_mastered_levels_are_replayed() -> None:
    weights = plan_mix(mastering(1, 2), FAMILIES, {}, (), SETTINGS).weights()
    assert weights == pytest.approx({("sum", 1): 0.2, ("sum", 2): 0.2, ("sum", 3): 0.5, ("sum", 4): 0.1})


def test_a_lost_level_becomes_the_frontier_again() -> None:
    mix = plan_mix(mastering(1, 3), FAMILIES, {}, (), SETTINGS)
    assert {share.level: share.role for share in mix.shares} == {
        1: "replay",
        2: "frontier",
        3: "replay",
        4: "lookahead",
    }


def test_when_all_is_mastered_all_is_replayed_alike() -> None:
    weights = plan_mix(mastering(1, 2, 3, 4, 5), FAMILIES, {}, (), SETTINGS).weights()
    assert list(weights.values()) == pytest.approx([0.2] * 5)


def test_families_weigh_alike() -> None:
    weights = plan_mix(mastering(1, 2), {"sum": (1, 2, 3), "sort": (1, 2)}, {}, (), SETTINGS).weights()
    assert sum(w for (family, _), w in weights.items() if family == "sort") == pytest.approx(0.5)


def test_a_coverage_gap_shifts_the_mix_and_adds_nothing() -> None:
    plain = plan_mix(mastering(1, 2), FAMILIES, {}, (), SETTINGS).weights()
    shifted = plan_mix(mastering(1, 2), FAMILIES, {("sum", 1): 1.0, ("copy", 1): 1.0}, (), SETTINGS)
    assert shifted.weights()["sum", 1] > plain["sum", 1]
    assert shifted.weights()["sum", 3] < plain["sum", 3]
    assert "coverage falls short by 100%" in shifted.shares[0].reason


def test_an_exhausted_level_is_capped_and_the_rest_takes_over() -> None:
    mix = plan_mix(mastering(1, 2), FAMILIES, {}, {("sum", 1)}, SETTINGS)
    assert mix.weights()["sum", 1] == pytest.approx(SETTINGS.exhausted_cap)
    assert mix.weights()["sum", 3] == pytest.approx(0.5 * 0.95 / 0.8)
    assert "no new items left" in mix.shares[0].reason


def test_when_everything_is_exhausted_nothing_is_capped() -> None:
    everything = {("sum", level) for level in range(1, 6)}
    assert plan_mix(mastering(1), FAMILIES, {}, everything, SETTINGS).weights()["sum", 2] == pytest.approx(0.5)


cells = st.tuples(st.sampled_from(["sum", "sort"]), st.integers(1, 4))


@given(st.sets(cells), st.dictionaries(cells, st.floats(0, 1)), st.sets(cells))
def test_weights_are_a_distribution_over_taught_levels(
    mastered: set[tuple[str, int]], gaps: dict[tuple[str, int], float], exhausted: set[tuple[str, int]]
) -> None:
    families = {"sum": (1, 2, 3), "sort": (1, 2, 3, 4)}
    mastery = Mastery(
        levels=tuple(LevelMastery(family=f, level=n, correct=9, n=10, is_mastered=True) for f, n in sorted(mastered))
    )
    weights = plan_mix(mastery, families, gaps, exhausted, SETTINGS).weights()
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weight >= 0 for weight in weights.values())
    assert all(level in families[family] for family, level in weights)
    free = [cell for cell in weights if cell not in exhausted]
    if free:
        assert all(weights[cell] <= SETTINGS.exhausted_cap + 1e-9 for cell in weights if cell in exhausted)
