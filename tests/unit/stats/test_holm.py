from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.holm import holm

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
