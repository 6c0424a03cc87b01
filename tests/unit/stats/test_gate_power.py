from __future__ import annotations

import numpy as np
import pytest
from ratchet.settings.gate import GateSettings
from ratchet.stats.gate_power import gate_power, pool_items, within_challenges
from scipy.special import ndtri


def test_the_shipped_suite_is_adequate() -> None:
    power = gate_power(GateSettings(), 900, {"chain_sum": 900})
    assert power.adequate
    assert power.within > 0.95
    assert power.items_needed == 900
    assert list(power.per_challenge) == sorted(power.per_challenge, reverse=True)


def test_too_small_a_suite_is_told_the_size_that_would_do() -> None:
    power = gate_power(GateSettings(), 150)
    assert not power.adequate
    assert str(power.items_needed) in power.advice
    assert gate_power(GateSettings(), power.items_needed).adequate
    assert not gate_power(GateSettings(), power.items_needed * 8 // 10).adequate


@pytest.mark.parametrize(
    ("assumption", "harder"),
    [
        ("gain", 0.04),
        ("flip_share", 0.25),
        ("power", 0.95),
        ("alpha", 0.001),
        ("challenges", 1),
        ("challenge_correlation", 0.99),
        ("margin", 0.02),
        ("safety_alpha", 0.001),
        ("protected_flip_share", 0.2),
    ],
)
def test_every_assumption_of_the_plan_counts(assumption: str, harder: float) -> None:
    size = gate_power(GateSettings(), 150, {"sums": 150}).items_needed
    assert gate_power(GateSettings(), size, {"sums": size}).adequate
    assert not gate_power(GateSettings.model_validate({assumption: harder}), size, {"sums": size}).adequate


def test_a_short_family_is_named() -> None:
    power = gate_power(GateSettings(), 900, {"sums": 800, "sorts": 100})
    assert power.short_families == {"sorts": 100}
    assert not power.adequate
    assert "sorts has 100" in power.advice
    scale = power.items_needed / 900
    assert gate_power(
        GateSettings(), power.items_needed, {"sums": int(800 * scale), "sorts": int(100 * scale)}
    ).adequate


def test_a_family_without_items_ends_in_advice_too() -> None:
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


def test_within_agrees_with_simulation() -> None:
    rng = np.random.default_rng(23)
    luck = np.sqrt(0.5) * rng.standard_normal((40_000, 1)) + np.sqrt(0.5) * rng.standard_normal((40_000, 3))
    won = (luck < ndtri([0.5, 0.4, 0.3])).any(axis=1).mean()
    assert within_challenges((0.5, 0.4, 0.3), 0.5) == pytest.approx(won, abs=0.01)
