from __future__ import annotations

import numpy as np
import pytest
import scipy
from ratchet.stats.paired_scores import (
    BOUNDS,
    affordable_margin,
    clipped,
    mean_above_p,
    mean_interval,
    mean_lower_bound,
    mean_upper_bound,
    scores_needed,
    smallest_gain,
)

BOUND = BOUNDS["loss"]


@pytest.mark.parametrize(("n", "gain"), [(6, 0.1), (20, 0.1), (20, 0.3), (100, 0.05)])
def test_equal_gains_have_a_closed_form(n: int, gain: float) -> None:
    """gain * Gamma(n) <= bound * E has probability (1 + gain / bound)^-n."""
    p = float(mean_above_p(np.full(n, gain), 0.0, BOUND))
    assert p == pytest.approx((1 + gain / BOUND) ** -n, rel=0.05)


def test_p_is_the_probability_of_the_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    exponentials = rng.exponential(size=(200_000, 31))
    for shift in (0.0, 0.05, 0.1):
        differences = clipped(rng.normal(shift, 0.15, 30), BOUND)
        drawn = float((exponentials @ np.append(differences, -BOUND) <= 0).mean())
        assert float(mean_above_p(differences, 0.0, BOUND)) == pytest.approx(drawn, rel=0.05, abs=0.002)


def test_nothing_is_proved_where_nothing_differs() -> None:
    assert float(mean_above_p(np.zeros(500), 0.0, BOUND)) == 1.0
    assert float(mean_above_p(np.full(500, -0.1), 0.0, BOUND)) == 1.0
    assert float(mean_above_p(np.zeros(3), -BOUND, BOUND)) == 0.0


def test_outliers_count_as_much_as_the_bound() -> None:
    calm = np.full(50, 0.05)
    wild, worst = calm.copy(), calm.copy()
    wild[0], worst[0] = -1e6, -BOUND
    assert float(mean_above_p(wild, 0.0, BOUND)) == float(mean_above_p(worst, 0.0, BOUND))


@pytest.mark.parametrize("alpha", [0.2, 0.025, 3e-4])
def test_a_bound_is_where_the_test_turns(alpha: float) -> None:
    differences = np.random.default_rng(1).normal(0.1, 0.2, 80)
    low, high = mean_lower_bound(differences, alpha, BOUND), mean_upper_bound(differences, alpha, BOUND)
    assert low < clipped(differences, BOUND).mean() < high
    assert (
        float(mean_above_p(differences, low - 1e-6, BOUND))
        <= alpha
        < float(mean_above_p(differences, low + 1e-6, BOUND))
    )
    assert low == pytest.approx(-mean_upper_bound(-differences, alpha, BOUND))


def test_with_many_items_the_interval_is_nearly_that_of_t() -> None:
    differences = np.random.default_rng(2).normal(0.05, 0.2, 2_000)
    found = mean_interval(differences, BOUND)
    values = clipped(differences, BOUND)
    half = scipy.stats.t.isf(0.025, 1_999) * values.std(ddof=1) / np.sqrt(2_000)
    assert found.low == pytest.approx(values.mean() - half, abs=0.001)
    assert found.high == pytest.approx(values.mean() + half, abs=0.001)


def centred(draw: np.ndarray) -> float:
    """The shift at which the mean of the clipped draws is 0."""
    return float(scipy.optimize.brentq(lambda shift: clipped(draw + shift, BOUND).mean(), -4, 4))


def rare_harm(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.02, -3.0, rng.normal(0, 0.03, shape))


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return -0.15 * np.exp(0.8 * rng.standard_normal(shape))


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 0.1 * rng.standard_t(3, shape)


@pytest.mark.parametrize("draw", [rare_harm, skewed, heavy])
@pytest.mark.parametrize("n", [20, 150])
def test_equal_models_pass_at_most_at_alpha(draw, n: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(n)
    shift = centred(draw(rng, (400_000,)))
    p = mean_above_p(draw(rng, (3_000, n)) + shift, 0.0, BOUND)
    for alpha in (0.1, 0.03, 0.003):
        assert (p <= alpha).mean() <= alpha + 2.6 * np.sqrt(alpha / 3_000)


def test_a_t_test_would_promote_where_harm_is_rare() -> None:
    """Why the test is not the t-test."""
    rng = np.random.default_rng(20)
    drawn = clipped(rare_harm(rng, (4_000, 20)) + centred(rare_harm(rng, (400_000,))), BOUND)
    t = drawn.mean(axis=1) / (drawn.std(axis=1, ddof=1) / np.sqrt(20))
    assert (scipy.stats.t.sf(t, 19) <= 0.03).mean() > 0.1


@pytest.mark.parametrize(("n", "spread", "alpha"), [(46, 0.2, 0.03), (150, 0.1, 0.001), (200, 0.4, 0.03)])
def test_the_planned_gain_is_proved_with_the_planned_power(n: int, spread: float, alpha: float) -> None:
    gain = smallest_gain(n, spread, alpha, 0.8, BOUND)
    assert gain is not None
    drawn = gain + spread * np.random.default_rng(4).standard_normal((1_000, n))
    assert (mean_above_p(drawn, 0.0, BOUND) <= alpha).mean() == pytest.approx(0.82, abs=0.1)
    assert scores_needed(gain, spread, alpha, 0.8, BOUND) == pytest.approx(n, rel=0.06)


def test_three_items_prove_nothing() -> None:
    assert smallest_gain(3, 0.2, 0.03, 0.8, BOUND) is None
    assert smallest_gain(0, 0.2, 0.03, 0.8, BOUND) is None


@pytest.mark.parametrize(("n", "spread"), [(20, 0.1), (46, 0.2), (300, 0.1)])
def test_an_equal_model_passes_within_the_affordable_margin_and_a_worse_one_does_not(n: int, spread: float) -> None:
    margin = affordable_margin(n, spread, 0.2, 0.8, BOUND)
    drawn = spread * np.random.default_rng(3).standard_normal((1_000, n))
    assert (mean_above_p(drawn, -margin, BOUND) <= 0.2).mean() >= 0.77
    assert (mean_above_p(drawn - margin, -margin, BOUND) <= 0.2).mean() <= 0.2
