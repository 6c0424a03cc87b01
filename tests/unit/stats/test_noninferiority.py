from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.difference import lower_bound
from ratchet.stats.noninferiority import (
    affordable_alpha,
    fewest_items,
    items_needed,
    noninferiority_p,
    noninferiority_power,
)

tables = st.integers(1, 500).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m), st.just(n)))
)


@given(tables, st.sampled_from([0.02, 0.04, 0.05, 0.1]))
def test_agrees_with_the_lower_bound(table: tuple[int, int, int], margin: float) -> None:
    gains, flips, n = table
    p = float(noninferiority_p(gains, flips - gains, n, margin))
    bound = float(lower_bound(gains, flips - gains, n, 0.05))
    assert 0 <= p <= 1
    if abs(bound + margin) > 1e-9:
        assert (p < 0.05) == (bound > -margin)


@given(tables, st.sampled_from([0.02, 0.04, 0.1]))
def test_another_gain_never_makes_it_less_safe(table: tuple[int, int, int], margin: float) -> None:
    gains, flips, n = table
    losses = flips - gains
    if flips < n:
        before = noninferiority_p(gains, losses, n, margin)
        after = noninferiority_p(gains + 1, losses, n, margin)
        assert after <= before + 1e-12 or after < 1e-4
    if losses:
        assert noninferiority_p(gains, losses - 1, n, margin) <= noninferiority_p(gains, losses, n, margin) + 1e-12


def test_textbook_sizes() -> None:
    assert items_needed(0.10, 0.03) == pytest.approx(687, abs=1)
    assert items_needed(0.05, 0.05) == pytest.approx(124, abs=1)


@pytest.mark.parametrize("margin", [0.03, 0.04, 0.05])
def test_fewest_items_is_where_no_flip_at_all_just_passes(margin: float) -> None:
    least = fewest_items(margin)
    assert noninferiority_p(0, 0, least, margin) <= 0.05 < noninferiority_p(0, 0, least - 1, margin)


def test_power_agrees_with_simulation() -> None:
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
