from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_tests import lower_bound, mcnemar_better, noninferiority_p
from ratchet.stats.power import (
    affordable_alpha,
    connor_items,
    gate_power,
    items_needed,
    min_items,
    noninferiority_power,
    pool_items,
    smallest_detectable,
    superiority_power,
    within_challenges,
)
from scipy.special import ndtri


def test_connor_sizes() -> None:
    assert connor_items(0.02, 0.10, 0.025, 0.8) == pytest.approx(1_960, rel=0.005)
    assert connor_items(0.05, 0.15, 0.025, 0.8) == pytest.approx(470, rel=0.005)


def test_the_exact_test_needs_a_little_more() -> None:
    connor = connor_items(0.05, 0.15, 0.025, 0.8)
    assert superiority_power(connor, 0.05, 0.15, 0.025) < 0.8 < superiority_power(560, 0.05, 0.15, 0.025)


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(11)
    draws = rng.multinomial(400, [0.1, 0.05, 0.85], size=20_000)
    found = (mcnemar_better(draws[:, 0], draws[:, 1]) <= 0.03).mean()
    assert superiority_power(400, 0.05, 0.15, 0.03) == pytest.approx(found, abs=0.012)


def test_with_no_gain_power_is_at_most_the_level() -> None:
    assert superiority_power(300, 0.0, 0.2, 0.05) <= 0.05


def test_smallest_detectable_difference() -> None:
    seen = smallest_detectable(150, 0.15, 0.05, 0.8)
    assert seen is not None
    assert superiority_power(150, seen, 0.15, 0.05) >= 0.8 > superiority_power(150, seen - 0.002, 0.15, 0.05)


def test_no_difference_is_visible_on_three_items() -> None:
    assert smallest_detectable(3, 0.5, 0.05, 0.8) is None


tables = st.integers(1, 500).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m), st.just(n)))
)


@given(tables, st.sampled_from([0.02, 0.04, 0.05, 0.1]))
def test_agrees_with_the_lower_bound(table: tuple[int, int, int], margin: float) -> None:
    gains, discordant, n = table
    p = float(noninferiority_p(gains, discordant - gains, n, margin))
    bound = float(lower_bound(gains, discordant - gains, n, 0.05))
    assert 0 <= p <= 1
    if abs(bound + margin) > 1e-9:
        assert (p < 0.05) == (bound > -margin)


@given(tables, st.sampled_from([0.02, 0.04, 0.1]))
def test_another_gain_never_makes_it_less_safe(table: tuple[int, int, int], margin: float) -> None:
    gains, discordant, n = table
    losses = discordant - gains
    if discordant < n:
        before = noninferiority_p(gains, losses, n, margin)
        after = noninferiority_p(gains + 1, losses, n, margin)
        assert after <= before + 1e-12 or after < 1e-4
    if losses:
        assert noninferiority_p(gains, losses - 1, n, margin) <= noninferiority_p(gains, losses, n, margin) + 1e-12


def test_textbook_sizes() -> None:
    assert items_needed(0.10, 0.03) == pytest.approx(687, abs=1)
    assert items_needed(0.05, 0.05) == pytest.approx(124, abs=1)


@pytest.mark.parametrize("margin", [0.03, 0.04, 0.05])
def test_fewest_items_is_where_no_difference_just_passes(margin: float) -> None:
    least = min_items(margin)
    assert noninferiority_p(0, 0, least, margin) <= 0.05 < noninferiority_p(0, 0, least - 1, margin)


def test_noninferiority_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(5)
    draws = rng.multinomial(200, [0.03, 0.03, 0.94], size=20_000)
    passed = (noninferiority_p(draws[:, 0], draws[:, 1], 200, 0.04) <= 0.05).mean()
    assert noninferiority_power(200, 0.06, 0.04) == pytest.approx(passed, abs=0.012)


def test_affordable_alpha_falls_from_relaxed_to_full() -> None:
    levels = [affordable_alpha(n, 0.05, 0.04) for n in range(1, 400)]
    assert levels[0] == pytest.approx(0.2)
    assert levels[items_needed(0.05, 0.04) - 1] == 0.05
    assert all(later <= earlier for earlier, later in pairwise(levels))


@pytest.mark.parametrize("n", [50, 75, 100, 150, 190])
def test_a_drop_beyond_the_margin_is_refused_with_the_planned_power_at_any_size(n: int) -> None:
    alpha = affordable_alpha(n, 0.05, 0.04)
    assert noninferiority_power(n, 0.08, 0.04, alpha, difference=-0.05) <= 0.2


def test_the_shipped_suite_is_adequate() -> None:
    power = gate_power(GateSettings(), 900, {"chain_sum": 900})
    assert power.adequate
    assert power.within > 0.95
    assert power.items_needed == 900
    assert list(power.per_challenge) == sorted(power.per_challenge, reverse=True)


def test_too_small_a_suite_is_reported_with_a_sufficient_size() -> None:
    power = gate_power(GateSettings(), 150)
    assert not power.adequate
    assert str(power.items_needed) in power.advice
    assert gate_power(GateSettings(), power.items_needed).adequate
    assert not gate_power(GateSettings(), power.items_needed * 8 // 10).adequate


@pytest.mark.parametrize(
    ("assumption", "harder"),
    [
        ("gain", 0.04),
        ("discordant_share", 0.25),
        ("power", 0.95),
        ("alpha", 0.001),
        ("margin", 0.02),
    ],
)
def test_every_assumption_of_the_plan_counts(assumption: str, harder: float) -> None:
    size = gate_power(GateSettings(), 150, {"sums": 150}).items_needed
    assert gate_power(GateSettings(), size, {"sums": size}).adequate
    assert not gate_power(GateSettings.model_validate({assumption: harder}), size, {"sums": size}).adequate


def test_a_short_family_is_named() -> None:
    power = gate_power(GateSettings(), 900, {"sums": 800, "sorts": 100})
    assert not power.adequate
    assert "sorts has 100" in power.advice
    scale = power.items_needed / 900
    assert gate_power(
        GateSettings(), power.items_needed, {"sums": int(800 * scale), "sorts": int(100 * scale)}
    ).adequate


def test_a_family_without_items_gets_advice_too() -> None:
    assert not gate_power(GateSettings(), 900, {"sums": 900, "none": 0}).adequate


def test_many_protected_families_cost_power() -> None:
    pool = pool_items(GateSettings())
    few = gate_power(GateSettings(), 900, {"a": pool})
    many = gate_power(GateSettings(), 900, dict.fromkeys("abcdef", pool))
    assert many.within < few.within


def test_challenges_of_one_luck_are_one_challenge_and_of_none_are_many() -> None:
    chances = (0.5, 0.4, 0.3)
    assert within_challenges(chances, 0.0) == pytest.approx(1 - 0.5 * 0.6 * 0.7, abs=1e-6)
    assert within_challenges(chances, 0.999) == pytest.approx(0.5, abs=0.02)


def test_power_within_challenges_agrees_with_simulation() -> None:
    rng = np.random.default_rng(23)
    luck = np.sqrt(0.5) * rng.standard_normal((40_000, 1)) + np.sqrt(0.5) * rng.standard_normal((40_000, 3))
    won = (luck < ndtri([0.5, 0.4, 0.3])).any(axis=1).mean()
    assert within_challenges((0.5, 0.4, 0.3), 0.5) == pytest.approx(won, abs=0.01)
