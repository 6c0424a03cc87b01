from __future__ import annotations

import pytest
from ratchet.errors import EmptyEvaluation
from ratchet.stats.newcombe import newcombe


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


def test_nothing_is_no_proportion() -> None:
    with pytest.raises(EmptyEvaluation):
        newcombe(0, 0, 1, 2)
