from __future__ import annotations

import pytest
from datagen.mix import COVERAGE_SHIFT, EXHAUSTED_CAP, Mix, bend
from datagen.strategies import (
    FEWEST_ITEMS,
    HYSTERESIS,
    LearnerState,
    LevelMastery,
    Mastery,
    Strategy,
    get_strategy,
    known_strategies,
    update_mastery,
)
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import UnknownPlugin
from ratchet.evaluation.record import LevelRates, Rate
from ratchet.settings.data import CurriculumSettings

SETTINGS = CurriculumSettings()
FAMILIES = {"sum": (1, 2, 3, 4, 5)}
STRATEGIES = ("progressive", "mixed", "reverse", "adaptive")


def mastering(*levels: int, family: str = "sum") -> Mastery:
    return Mastery(
        levels=tuple(LevelMastery(family=family, level=n, correct=10, n=10, is_mastered=True) for n in levels)
    )


def rates(*values: float, family: str = "sum", n: int = 100) -> LevelRates:
    return {(family, level): Rate(correct=round(n * value), n=n) for level, value in enumerate(values, start=1)}


def mix(
    strategy: str,
    mastery: Mastery,
    *history: LevelRates,
    gaps: dict[tuple[str, int], float] | None = None,
    exhausted: set[tuple[str, int]] | None = None,
    families: dict[str, tuple[int, ...]] = FAMILIES,
    settings: CurriculumSettings = SETTINGS,
) -> Mix:
    draft = get_strategy(strategy).draft(LearnerState(families, mastery, history, settings))
    return bend(strategy, draft, gaps or {}, exhausted or set())


def measured(correct: int, n: int = 100) -> LevelRates:
    return {("sum", 1): Rate(correct=correct, n=n)}


def test_a_level_is_won_at_the_threshold_and_lost_only_below_the_hysteresis() -> None:
    states = []
    mastery = Mastery()
    for correct in (89, 90, 86, 85, 84, 89, 91):
        mastery = update_mastery(mastery, measured(correct), SETTINGS.mastery)
        states.append(mastery.is_mastered("sum", 1))
    assert states == [False, True, True, True, False, False, True]


def test_too_few_items_change_nothing() -> None:
    assert not update_mastery(Mastery(), measured(4, n=4), 0.9).is_mastered("sum", 1)
    assert update_mastery(mastering(1), measured(0, n=4), 0.9).is_mastered("sum", 1)


def test_the_rate_at_which_a_level_is_mastered_is_an_argument() -> None:
    assert not update_mastery(Mastery(), measured(85), 0.9).is_mastered("sum", 1)
    assert update_mastery(Mastery(), measured(85), 0.85).is_mastered("sum", 1)
    assert (HYSTERESIS, FEWEST_ITEMS) == (0.05, 5)


def test_a_level_that_was_not_measured_keeps_its_state() -> None:
    after = update_mastery(mastering(2), measured(50), 0.9)
    assert after.is_mastered("sum", 2)
    assert not after.is_mastered("sum", 1)


def test_a_model_that_masters_everything_has_a_mix_too() -> None:
    """The prior system raised as soon as a model was good, and again at the last level."""
    everything = mastering(1, 2, 3, 4, 5)
    for strategy in STRATEGIES:
        assert sum(mix(strategy, everything, rates(1, 1, 1, 1, 1)).weights().values()) == pytest.approx(1)


def test_progressive_gives_a_beginner_the_first_level_and_a_little_of_the_second() -> None:
    made = mix("progressive", Mastery())
    assert made.weights() == pytest.approx({("sum", 1): 5 / 6, ("sum", 2): 1 / 6})
    assert [share.role for share in made.shares] == ["frontier", "lookahead"]


def test_progressive_gives_the_frontier_half_and_replays_mastered_levels() -> None:
    weights = mix("progressive", mastering(1, 2)).weights()
    assert weights == pytest.approx({("sum", 1): 0.2, ("sum", 2): 0.2, ("sum", 3): 0.5, ("sum", 4): 0.1})


def test_progressive_takes_its_frontier_share_from_the_settings() -> None:
    made = mix("progressive", mastering(1, 2), settings=CurriculumSettings(frontier_share=0.7))
    assert list(made.weights().values()) == pytest.approx([0.1, 0.1, 0.7, 0.1])


def test_adaptive_takes_the_share_of_its_replay_from_the_settings() -> None:
    settings = [CurriculumSettings(replay_share=share) for share in (0.2, 1.0)]
    some, alone = [mix("adaptive", mastering(1), rates(0.95, 0.1, 0, 0, 0), settings=s).weights() for s in settings]
    assert min(some.values()) < min(alone.values()) == pytest.approx(max(alone.values()))


def test_a_lost_level_becomes_the_frontier_again() -> None:
    made = mix("progressive", mastering(1, 3))
    assert {share.level: share.role for share in made.shares} == {
        1: "replay",
        2: "frontier",
        3: "replay",
        4: "lookahead",
    }


def test_reverse_begins_with_the_hardest() -> None:
    made = mix("reverse", mastering(5))
    assert {share.level: share.role for share in made.shares} == {5: "replay", 4: "frontier", 3: "lookahead"}
    assert made.weights()["sum", 4] == pytest.approx(0.5)
    assert made.shares[1].reason == "the hardest level not mastered"


def test_when_all_levels_are_mastered_all_are_replayed_equally() -> None:
    weights = mix("progressive", mastering(1, 2, 3, 4, 5)).weights()
    assert list(weights.values()) == pytest.approx([0.2] * 5)


def test_families_have_equal_weight() -> None:
    weights = mix("progressive", mastering(1, 2), families={"sum": (1, 2, 3), "sort": (1, 2)}).weights()
    assert sum(w for (family, _), w in weights.items() if family == "sort") == pytest.approx(0.5)


def test_mixed_does_not_depend_on_the_model() -> None:
    assert mix("mixed", Mastery()).weights() == mix("mixed", mastering(1, 2), rates(1, 1, 0.4)).weights()
    assert set(mix("mixed", Mastery()).weights().values()) == {0.2}


def test_adaptive_begins_at_the_first_level() -> None:
    assert mix("adaptive", Mastery()).weights() == pytest.approx({("sum", 1): 1.0})
    assert mix("adaptive", Mastery(), rates(0, 0, 0, 0, 0)).weights() == pytest.approx({("sum", 1): 1.0})


def test_adaptive_prefers_the_level_after_the_mastered_ones() -> None:
    weights = mix("adaptive", mastering(1), rates(0.95, 0.1, 0, 0, 0)).weights()
    assert max(weights, key=lambda cell: weights[cell]) == ("sum", 2)
    assert ("sum", 4) not in weights
    assert weights["sum", 1] >= SETTINGS.replay_share / 3


def test_adaptive_lowers_a_level_without_progress() -> None:
    fresh = mix("adaptive", mastering(1), rates(0.95, 0.3, 0.2, 0, 0)).weights()
    stuck = mix("adaptive", mastering(1), *[rates(0.95, 0.3, 0.2 * step, 0, 0) for step in (0, 1, 2, 3)]).weights()
    assert stuck["sum", 2] / stuck["sum", 3] < fresh["sum", 2] / fresh["sum", 3]


def test_adaptive_raises_a_level_that_is_being_forgotten() -> None:
    kept = mix("adaptive", mastering(1, 2), rates(0.95, 0.9, 0.5, 0, 0), rates(0.95, 0.9, 0.5, 0, 0)).weights()
    lost = mix("adaptive", mastering(1, 2), rates(0.95, 0.9, 0.5, 0, 0), rates(0.4, 0.9, 0.5, 0, 0)).weights()
    assert lost["sum", 1] > 2 * kept["sum", 1]


def test_adaptive_ignores_progress_within_chance() -> None:
    steady = mix("adaptive", mastering(1, 2), rates(0.95, 0.9, 0.5, 0, 0, n=20), rates(0.95, 0.9, 0.5, 0, 0, n=20))
    noisy = mix("adaptive", mastering(1, 2), rates(0.95, 0.9, 0.5, 0, 0, n=20), rates(0.9, 0.9, 0.5, 0, 0, n=20))
    before, after = steady.weights()["sum", 1], noisy.weights()["sum", 1]
    assert after - before < 0.05


def test_a_coverage_gap_shifts_the_mix_and_adds_nothing() -> None:
    plain = mix("progressive", mastering(1, 2)).weights()
    shifted = mix("progressive", mastering(1, 2), gaps={("sum", 1): 1.0, ("copy", 1): 1.0})
    assert shifted.weights()["sum", 1] > plain["sum", 1]
    assert shifted.weights()["sum", 3] < plain["sum", 3]
    assert "coverage falls short by 100%" in shifted.shares[0].reason


def test_an_exhausted_level_is_capped_and_the_rest_takes_over() -> None:
    made = mix("progressive", mastering(1, 2), exhausted={("sum", 1)})
    assert made.weights()["sum", 1] == pytest.approx(EXHAUSTED_CAP)
    assert made.weights()["sum", 3] == pytest.approx(0.5 * 0.95 / 0.8)
    assert "no new items left" in made.shares[0].reason


def test_a_gap_of_one_adds_the_coverage_shift() -> None:
    weight = mix("progressive", mastering(1, 2), gaps={("sum", 1): 1.0}).weights()["sum", 1]
    assert weight == pytest.approx(0.2 * (1 + COVERAGE_SHIFT) / (1 + 0.2 * COVERAGE_SHIFT))


def test_when_everything_is_exhausted_nothing_is_capped() -> None:
    everything = {("sum", level) for level in range(1, 6)}
    assert mix("progressive", mastering(1), exhausted=everything).weights()["sum", 2] == pytest.approx(0.5)


def test_every_strategy_keeps_to_the_plug_in_protocol() -> None:
    assert set(STRATEGIES) <= set(known_strategies())
    for name in known_strategies():
        strategy = get_strategy(name)
        assert isinstance(strategy, Strategy)
        assert (strategy.name, bool(strategy.purpose)) == (name, True)


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPlugin, match=r"no strategy 'adaptiv'.*Known: adaptive, mixed"):
        get_strategy("adaptiv")


cells = st.tuples(st.sampled_from(["sum", "sort"]), st.integers(1, 4))


@given(
    st.sampled_from(STRATEGIES),
    st.sets(cells),
    st.lists(st.dictionaries(cells, st.integers(0, 20)), max_size=4),
    st.dictionaries(cells, st.floats(0, 1)),
    st.sets(cells),
)
def test_weights_are_a_distribution_over_taught_levels(
    strategy: str,
    mastered: set[tuple[str, int]],
    probes: list[dict[tuple[str, int], int]],
    gaps: dict[tuple[str, int], float],
    exhausted: set[tuple[str, int]],
) -> None:
    families = {"sum": (1, 2, 3), "sort": (1, 2, 3, 4)}
    mastery = Mastery(
        levels=tuple(LevelMastery(family=f, level=n, correct=9, n=10, is_mastered=True) for f, n in sorted(mastered))
    )
    history = [{cell: Rate(correct=correct, n=20) for cell, correct in probe.items()} for probe in probes]
    weights = mix(strategy, mastery, *history, gaps=gaps, exhausted=exhausted, families=families).weights()
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weight >= 0 for weight in weights.values())
    assert all(level in families[family] for family, level in weights)
    free = [cell for cell in weights if cell not in exhausted and weights[cell] > 0]
    if free:
        assert all(weights[cell] <= EXHAUSTED_CAP + 1e-9 for cell in weights if cell in exhausted)
