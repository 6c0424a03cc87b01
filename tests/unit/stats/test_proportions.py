from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.errors import EmptyEvaluation
from ratchet.stats.proportions import newcombe, wilson


def test_the_interval_of_twenty_items_is_wide() -> None:
    interval = wilson(18, 20)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.699, 0.972)


def test_two_hundred_items_at_eighty_percent() -> None:
    interval = wilson(160, 200)
    assert (interval.high - interval.low) / 2 == pytest.approx(0.055, abs=0.001)


def test_a_rate_of_no_items_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation, match="no item"):
        wilson(0, 0)


@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_holds_the_rate_and_stays_in_range(case: tuple[int, int]) -> None:
    correct, n = case
    interval = wilson(correct, n)
    assert 0 <= interval.low <= correct / n <= interval.high <= 1
    mirrored = wilson(n - correct, n)
    assert mirrored.low == pytest.approx(1 - interval.high, abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((10, 10, 0, 10), 0.6075, 1.0)],
)
def test_the_papers_own_examples(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    interval = newcombe(*counts)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=2e-4)


def test_swapping_the_two_mirrors_the_interval() -> None:
    one, other = newcombe(5, 20, 9, 30), newcombe(9, 30, 5, 20)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_proportion_of_no_items_is_an_error() -> None:
    with pytest.raises(EmptyEvaluation):
        newcombe(0, 0, 1, 2)
