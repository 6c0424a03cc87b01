from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.calibration import brier, ece, mce, nll, reliability

pairs = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=200)


def test_ece_is_weighted_by_count() -> None:
    confidence = np.array([0.95] * 90 + [0.15] * 10)
    outcome = np.array([1.0] * 90 + [1.0] * 10)
    diagram = reliability(confidence, outcome)
    assert ece(diagram) == pytest.approx(0.9 * 0.05 + 0.1 * 0.85)
    assert mce(diagram) == pytest.approx(0.85)


def test_equal_mass_bins_hold_equally_many() -> None:
    confidence = np.random.default_rng(0).beta(8, 1, 500)
    diagram = reliability(confidence, np.ones(500), binning="equal_mass")
    assert [b.n for b in diagram] == [50] * 10


def test_certainty_lies_in_the_last_bin() -> None:
    assert [b.n for b in reliability(np.array([1.0, 0.0]), np.array([1.0, 0.0]))] == [1, 1]


def test_scores_by_hand() -> None:
    confidence, outcome = np.array([0.8, 0.3]), np.array([1.0, 0.0])
    assert brier(confidence, outcome) == pytest.approx((0.04 + 0.09) / 2)
    assert nll(confidence, outcome) == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    assert nll(np.array([0.0]), np.array([1.0])) == pytest.approx(-np.log(1e-6))


@given(pairs, st.sampled_from(["equal_width", "equal_mass"]))
def test_every_item_is_in_one_bin_and_errors_are_shares(pairs: list[tuple[float, bool]], binning: str) -> None:
    confidence, outcome = np.array([c for c, _ in pairs]), np.array([float(o) for _, o in pairs])
    diagram = reliability(confidence, outcome, binning=binning)
    assert sum(b.n for b in diagram) == len(pairs)
    assert 0 <= ece(diagram) <= mce(diagram) + 1e-12
    assert mce(diagram) <= 1 + 1e-12
