from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.paired_tests import (
    alpha_spent,
    difference_interval,
    holm,
    lower_bound,
    mcnemar_better,
    tango_z,
    upper_bound,
)
from ratchet.stats.power import noninferiority_power
from scipy.special import xlogy
from scipy.stats import binomtest, norm

counts = st.integers(0, 400)


@given(counts, counts)
def test_agrees_with_the_binomial_test(gains: int, losses: int) -> None:
    if gains + losses == 0:
        assert mcnemar_better(0, 0) == 1.0
        return
    expected = binomtest(gains, gains + losses, alternative="greater").pvalue
    assert mcnemar_better(gains, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(counts, counts)
def test_is_a_probability(gains: int, losses: int) -> None:
    assert 0 <= mcnemar_better(gains, losses) <= 1


@given(counts, counts)
def test_another_gain_never_weakens_it(gains: int, losses: int) -> None:
    assert mcnemar_better(gains + 1, losses) <= mcnemar_better(gains, losses) * (1 + 1e-12)


def test_six_unanimous_differences_pass_the_first_challenge_and_five_do_not() -> None:
    first = 0.05 * 6 / np.pi**2
    assert mcnemar_better(6, 0) <= first < mcnemar_better(5, 0)


def test_takes_arrays() -> None:
    assert mcnemar_better([1, 0, 9], [1, 3, 0]).tolist() == pytest.approx([0.75, 1.0, 2**-9])


tables = st.integers(1, 600).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m), st.just(n)))
)


def test_published_example() -> None:
    # Tango's crossover trial: 44 patients, one discordant pair, margin 0.1; Z = 1.709, 90 % from -0.096 to 0.037.
    interval = difference_interval(0, 1, 44, confidence=0.9)
    assert tango_z(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    assert (round(interval.low, 3), round(interval.high, 3)) == (-0.096, 0.037)


@pytest.mark.parametrize("table", [(3, 9, 120, -0.05), (30, 12, 200, 0.1), (5, 0, 60, 0.02)])
def test_variance_is_the_likeliest_under_the_hypothesis(table: tuple[int, int, int, float]) -> None:
    gains, losses, n, delta = table
    shares = np.linspace(max(0.0, -delta), (1 - delta) / 2, 200_001)[1:-1]
    likelihood = (
        xlogy(gains, shares + delta) + xlogy(losses, shares) + xlogy(n - gains - losses, 1 - 2 * shares - delta)
    )
    share = shares[likelihood.argmax()]
    z = (gains - losses - n * delta) / np.sqrt(n * (2 * share + delta - delta**2))
    assert tango_z(*table) == pytest.approx(z, rel=1e-4)


def test_is_the_uncorrected_mcnemar_test_at_no_difference() -> None:
    assert tango_z(30, 12, 200, 0.0) == pytest.approx((30 - 12) / np.sqrt(42))


@given(tables)
def test_bounds_hold_the_estimate_and_mirror_each_other(table: tuple[int, int, int]) -> None:
    gains, discordant, n = table
    losses = discordant - gains
    low, high = lower_bound(gains, losses, n, 0.05), upper_bound(gains, losses, n, 0.05)
    assert -1 <= low <= (gains - losses) / n <= high <= 1
    assert lower_bound(losses, gains, n, 0.05) == pytest.approx(-high, abs=1e-12)


@given(tables)
def test_the_bound_is_where_the_test_turns(table: tuple[int, int, int]) -> None:
    gains, discordant, n = table
    low = float(lower_bound(gains, discordant - gains, n, 0.05))
    if low > -0.999:
        assert tango_z(gains, discordant - gains, n, low) == pytest.approx(norm.isf(0.05), abs=1e-5)


@pytest.mark.parametrize("n", [10, 40, 80, 160])
@pytest.mark.parametrize("margin", [0.03, 0.05])
def test_level_by_enumeration_of_every_outcome(n: int, margin: float) -> None:
    shares = [margin, margin + 0.005, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5]
    levels = [noninferiority_power(n, share, margin, difference=-margin) for share in shares]
    assert max(levels) <= 0.058


def test_level_in_its_worst_corner() -> None:
    worst = max(noninferiority_power(n, 0.05, 0.05, difference=-0.05) for n in range(50, 60))
    assert 0.05 < worst < 0.072


@pytest.mark.parametrize(("gains", "losses"), [(0.03, 0.08), (0.1, 0.1), (0.0, 0.02)])
def test_coverage_of_the_interval(gains: float, losses: float) -> None:
    rng = np.random.default_rng(3)
    draws = rng.multinomial(120, [gains, losses, 1 - gains - losses], size=4_000)
    low = lower_bound(draws[:, 0], draws[:, 1], 120, 0.025)
    high = upper_bound(draws[:, 0], draws[:, 1], 120, 0.025)
    covered = ((low <= gains - losses) & (gains - losses <= high)).mean()
    assert covered >= 0.935


probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_of_nothing_is_nothing() -> None:
    assert holm([]) == []


@given(probabilities)
def test_lies_between_raw_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(raw <= a <= min(1, raw * len(p)) + 1e-12 for raw, a in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_familywise_rate_over_dependent_tests() -> None:
    rng = np.random.default_rng(7)
    p = rng.random((4_000, 8))
    p[:, 4:] = p[:, :4]
    false_alarms = np.mean([min(holm(list(row))) <= 0.05 for row in p])
    assert false_alarms <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4_000)


def test_adds_up_to_alpha() -> None:
    spent = sum(alpha_spent(0.05, k) for k in range(1, 100_001))
    assert 0.04999 < spent < 0.05


def test_the_ninety_sixth_challenge_takes_nineteen_unanimous_differences() -> None:
    level = alpha_spent(0.05, 96)
    assert level == pytest.approx(3.3e-6, rel=0.01)
    assert mcnemar_better(19, 0) <= level < mcnemar_better(18, 0)


def test_counts_from_one() -> None:
    with pytest.raises(ValueError, match="from 1"):
        alpha_spent(0.05, 0)
