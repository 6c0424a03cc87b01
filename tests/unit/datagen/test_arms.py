from __future__ import annotations

import pytest
from datagen.arms import registry
from datagen.arms.arm import Arm, Standing
from datagen.mastery import LevelMastery, Mastery, update_mastery
from datagen.mix import Mix, bend
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import UnknownPlugin
from ratchet.evaluation.record import LevelRates, Rate
from ratchet.settings.curriculum import CurriculumSettings

SETTINGS = CurriculumSettings()
FAMILIES = {"sum": (1, 2, 3, 4, 5)}
ARMS = ("progressive", "mixed", "reverse", "adaptive")


def mastering(*levels: int, family: str = "sum") -> Mastery:
    return Mastery(
        levels=tuple(LevelMastery(family=family, level=n, correct=10, n=10, is_mastered=True) for n in levels)
    )


def rates(*values: float, family: str = "sum", n: int = 100) -> LevelRates:
    return {(family, level): Rate(correct=round(n * value), n=n) for level, value in enumerate(values, start=1)}


def mix(
    arm: str,
    mastery: Mastery,
    *history: LevelRates,
    gaps: dict[tuple[str, int], float] | None = None,
    exhausted: set[tuple[str, int]] | None = None,
    families: dict[str, tuple[int, ...]] = FAMILIES,
    settings: CurriculumSettings = SETTINGS,
) -> Mix:
    draft = registry.get(arm).draft(Standing(families, mastery, history, settings))
    return bend(arm, draft, gaps or {}, exhausted or set(), settings)


def measured(correct: int, n: int = 100) -> LevelRates:
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


@pytest.mark.parametrize(
    ("before", "correct", "n", "changed"),
    [
        (Mastery(), 85, 100, {"mastery": 0.85}),
        (Mastery(), 4, 4, {"mastery_items": 4}),
        (mastering(1), 80, 100, {"hysteresis": 0.1}),
    ],
    ids=["mastery", "mastery_items", "hysteresis"],
)
def test_when_a_level_is_mastered_is_set(before: Mastery, correct: int, n: int, changed: dict[str, float]) -> None:
    assert not update_mastery(before, measured(correct, n), CurriculumSettings(mastery_items=5)).is_mastered("sum", 1)
    told = CurriculumSettings.model_validate(changed)
    assert update_mastery(before, measured(correct, n), told).is_mastered("sum", 1)


def test_what_is_not_measured_keeps_its_state() -> None:
    after = update_mastery(mastering(2), measured(50), SETTINGS)
    assert after.is_mastered("sum", 2)
    assert not after.is_mastered("sum", 1)


def test_a_model_that_masters_everything_has_a_mix_too() -> None:
    """The prior system raised as soon as a model was good, and again at the last level."""
    everything = mastering(1, 2, 3, 4, 5)
    for arm in ARMS:
        assert sum(mix(arm, everything, rates(1, 1, 1, 1, 1)).weights().values()) == pytest.approx(1)


def test_progressive_gives_a_beginner_the_first_level_and_a_look_at_the_second() -> None:
    made = mix("progressive", Mastery())
    assert made.weights() == pytest.approx({("sum", 1): 5 / 6, ("sum", 2): 1 / 6})
    assert [share.role for share in made.shares] == ["frontier", "lookahead"]


def test_progressive_gives_the_frontier_half_and_replays_mastered_levels() -> None:
    weights = mix("progressive", mastering(1, 2)).weights()
    assert weights == pytest.approx({("sum", 1): 0.2, ("sum", 2): 0.2, ("sum", 3): 0.5, ("sum", 4): 0.1})


@pytest.mark.parametrize(
    ("changed", "shares"),
    [
        ({"frontier_share": 0.7}, [0.1, 0.1, 0.7, 0.1]),
        ({"lookahead_share": 0.3}, [0.1, 0.1, 0.5, 0.3]),
    ],
    ids=["frontier_share", "lookahead_share"],
)
def test_progressive_takes_its_shares_from_the_settings(changed: dict[str, float], shares: list[float]) -> None:
    made = mix("progressive", mastering(1, 2), settings=CurriculumSettings.model_validate(changed))
    assert list(made.weights().values()) == pytest.approx(shares)


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


def test_when_all_is_mastered_all_is_replayed_alike() -> None:
    weights = mix("progressive", mastering(1, 2, 3, 4, 5)).weights()
    assert list(weights.values()) == pytest.approx([0.2] * 5)


def test_families_weigh_alike() -> None:
    weights = mix("progressive", mastering(1, 2), families={"sum": (1, 2, 3), "sort": (1, 2)}).weights()
    assert sum(w for (family, _), w in weights.items() if family == "sort") == pytest.approx(0.5)


def test_mixed_does_not_look_at_the_model() -> None:
    assert mix("mixed", Mastery()).weights() == mix("mixed", mastering(1, 2), rates(1, 1, 0.4)).weights()
    assert set(mix("mixed", Mastery()).weights().values()) == {0.2}


def test_adaptive_begins_at_the_first_level() -> None:
    assert mix("adaptive", Mastery()).weights() == pytest.approx({("sum", 1): 1.0})
    assert mix("adaptive", Mastery(), rates(0, 0, 0, 0, 0)).weights() == pytest.approx({("sum", 1): 1.0})


def test_adaptive_seeks_the_level_whose_ground_is_laid() -> None:
    weights = mix("adaptive", mastering(1), rates(0.95, 0.1, 0, 0, 0)).weights()
    assert max(weights, key=lambda cell: weights[cell]) == ("sum", 2)
    assert ("sum", 4) not in weights
    assert weights["sum", 1] >= SETTINGS.replay_share / 3


def test_adaptive_makes_way_where_teaching_shows_no_effect() -> None:
    fresh = mix("adaptive", mastering(1), rates(0.95, 0.3, 0.2, 0, 0)).weights()
    stuck = mix("adaptive", mastering(1), *[rates(0.95, 0.3, 0.2 * step, 0, 0) for step in (0, 1, 2, 3)]).weights()
    assert stuck["sum", 2] / stuck["sum", 3] < fresh["sum", 2] / fresh["sum", 3]


def test_adaptive_teaches_again_what_is_being_forgotten() -> None:
    kept = mix("adaptive", mastering(1, 2), rates(0.95, 0.9, 0.5, 0, 0), rates(0.95, 0.9, 0.5, 0, 0)).weights()
    lost = mix("adaptive", mastering(1, 2), rates(0.95, 0.9, 0.5, 0, 0), rates(0.4, 0.9, 0.5, 0, 0)).weights()
    assert lost["sum", 1] > 2 * kept["sum", 1]


def test_adaptive_takes_chance_for_no_progress() -> None:
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
    assert made.weights()["sum", 1] == pytest.approx(SETTINGS.exhausted_cap)
    assert made.weights()["sum", 3] == pytest.approx(0.5 * 0.95 / 0.8)
    assert "no new items left" in made.shares[0].reason


@pytest.mark.parametrize("cap", [0.0, 0.1])
def test_what_an_exhausted_level_gets_is_set(cap: float) -> None:
    settings = CurriculumSettings(exhausted_cap=cap)
    made = mix("progressive", mastering(1, 2), exhausted={("sum", 1)}, settings=settings)
    assert made.weights()["sum", 1] == pytest.approx(cap)


def test_how_strongly_a_gap_draws_is_set() -> None:
    drawn = [
        mix("progressive", mastering(1, 2), gaps={("sum", 1): 1.0}, settings=CurriculumSettings(coverage_shift=shift))
        for shift in (0.0, 1.0)
    ]
    assert [made.weights()["sum", 1] for made in drawn] == pytest.approx([0.2, 0.4 / 1.2])


def test_when_everything_is_exhausted_nothing_is_capped() -> None:
    everything = {("sum", level) for level in range(1, 6)}
    assert mix("progressive", mastering(1), exhausted=everything).weights()["sum", 2] == pytest.approx(0.5)


def test_every_arm_keeps_to_the_plug_in_protocol() -> None:
    assert set(ARMS) <= set(registry.known())
    for name in registry.known():
        arm = registry.get(name)
        assert isinstance(arm, Arm)
        assert (arm.name, bool(arm.purpose)) == (name, True)


def test_an_unknown_arm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownPlugin, match=r"no curriculum arm 'adaptiv'.*Known: adaptive, mixed"):
        registry.get("adaptiv")


cells = st.tuples(st.sampled_from(["sum", "sort"]), st.integers(1, 4))


@given(
    st.sampled_from(ARMS),
    st.sets(cells),
    st.lists(st.dictionaries(cells, st.integers(0, 20)), max_size=4),
    st.dictionaries(cells, st.floats(0, 1)),
    st.sets(cells),
)
def test_weights_are_a_distribution_over_taught_levels(
    arm: str,
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
    weights = mix(arm, mastery, *history, gaps=gaps, exhausted=exhausted, families=families).weights()
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weight >= 0 for weight in weights.values())
    assert all(level in families[family] for family, level in weights)
    free = [cell for cell in weights if cell not in exhausted and weights[cell] > 0]
    if free:
        assert all(weights[cell] <= SETTINGS.exhausted_cap + 1e-9 for cell in weights if cell in exhausted)
