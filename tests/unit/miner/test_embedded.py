from __future__ import annotations

from math import cos, dist, sin
from random import Random

import pytest
from miner.embedded import NEIGHBOURS, embedded_coverage
from ratchet.errors import EmptyEvaluation


def arc(first: float, last: float, count: int) -> list[tuple[float, float]]:
    """Points on the unit circle, evenly from one angle to another."""
    step = (last - first) / (count - 1)
    return [(cos(first + step * place), sin(first + step * place)) for place in range(count)]


def test_what_lies_where_the_reference_lies_covers_it_and_is_as_far_apart() -> None:
    found = embedded_coverage(arc(0, 1, 50), arc(0, 1, 50), "circle")
    assert (found.covered, found.rows, found.reference, found.model) == (1.0, 50, 50, "circle")
    assert found.spread == pytest.approx(1.0)


def test_rows_of_one_half_cover_one_half() -> None:
    found = embedded_coverage(arc(0, 2, 200), arc(0, 1, 100), "circle")
    assert found.covered == pytest.approx(0.5, abs=0.03)


def test_rows_that_are_nearly_the_same_cover_little_and_lie_close_together() -> None:
    found = embedded_coverage(arc(0, 1, 100), arc(0.5, 0.501, 100), "circle")
    assert found.covered < 0.15
    assert found.spread < 0.01


def test_the_length_of_a_vector_says_nothing() -> None:
    longer = [(7 * x, 7 * y) for x, y in arc(0, 1, 30)]
    assert embedded_coverage(arc(0, 1, 30), longer, "circle").covered == 1.0


def test_it_agrees_with_a_count_by_hand() -> None:
    random = Random(3)
    reference, rows = ([[random.gauss(0, 1) for _ in range(4)] for _ in range(40)] for _ in range(2))
    unit = [[[x / dist(v, [0] * 4) for x in v] for v in points] for points in (reference, rows)]
    radii = [sorted(dist(one, other) for other in unit[0])[NEIGHBOURS] for one in unit[0]]
    near = [min(dist(one, row) for row in unit[1]) <= radius for one, radius in zip(unit[0], radii, strict=True)]
    assert embedded_coverage(reference, rows, "noise").covered == pytest.approx(sum(near) / 40)


def test_too_few_vectors_are_an_error() -> None:
    with pytest.raises(EmptyEvaluation, match="too few"):
        embedded_coverage(arc(0, 1, NEIGHBOURS), arc(0, 1, 9), "circle")
