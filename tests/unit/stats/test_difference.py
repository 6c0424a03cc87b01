from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.difference import difference_interval, lower_bound, tango_z, upper_bound
from ratchet.stats.noninferiority import noninferiority_power
from scipy.special import xlogy
from scipy.stats import norm

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
    gains, flips, n = table
    losses = flips - gains
    low, high = lower_bound(gains, losses, n, 0.05), upper_bound(gains, losses, n, 0.05)
    assert -1 <= low <= (gains - losses) / n <= high <= 1
    assert lower_bound(losses, gains, n, 0.05) == pytest.approx(-high, abs=1e-12)


@given(tables)
def test_the_bound_is_where_the_test_turns(table: tuple[int, int, int]) -> None:
    gains, flips, n = table
    low = float(lower_bound(gains, flips - gains, n, 0.05))
    if low > -0.999:
        assert tango_z(gains, flips - gains, n, low) == pytest.approx(norm.isf(0.05), abs=1e-5)


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
