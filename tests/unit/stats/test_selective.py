from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.selective import area_under, auroc, risk_coverage, thinned, threshold_for

pairs = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([c for c, _ in pairs]), np.array([float(o) for _, o in pairs])


def test_auroc_by_hand_with_a_tie() -> None:
    assert auroc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(3.5 / 4)
    assert auroc(np.array([0.2, 0.3]), np.ones(2)) is None


def test_risk_falls_with_coverage_where_confidence_knows() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.8, 0.1]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert [(point.threshold, point.coverage, point.n) for point in curve] == [
        (0.9, 0.25, 1),
        (0.8, 0.75, 3),
        (0.1, 1.0, 4),
    ]
    assert [point.risk for point in curve] == pytest.approx([0.0, 1 / 3, 0.5])
    assert area_under(curve) == pytest.approx(0.5 / 3 + 0.25 / 2)


@given(pairs)
def test_the_curve_ends_with_all_items_and_does_not_depend_on_their_order(pairs: list[tuple[float, bool]]) -> None:
    confidence, outcome = arrays(pairs)
    curve = risk_coverage(confidence, outcome)
    assert curve == risk_coverage(confidence[::-1], outcome[::-1])
    assert curve[-1].coverage == 1.0
    assert curve[-1].risk == pytest.approx(1 - outcome.mean())
    assert thinned(curve)[-1] == curve[-1]
    assert len(thinned(curve)) <= 21


def test_the_threshold_keeps_its_promise_with_room() -> None:
    """Sure answers right in 98 of 100, unsure ones in half of the cases: 90 % is promised for the sure ones alone."""
    confidence = np.array([0.95] * 100 + [0.4] * 100)
    outcome = np.array([1.0] * 98 + [0.0] * 2 + [1.0, 0.0] * 50)
    found = threshold_for(risk_coverage(confidence, outcome), 0.9)
    assert found is not None
    assert (found.threshold, found.coverage) == (0.95, 0.5)


def test_a_few_lucky_answers_promise_nothing() -> None:
    assert threshold_for(risk_coverage(np.array([0.9] * 5 + [0.1] * 50), np.array([1.0] * 5 + [0.0] * 50)), 0.9) is None
