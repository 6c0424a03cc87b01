from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.calibration import brier
from ratchet.stats.isotonic import Isotonic, fit_isotonic

pairs = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


def test_violators_are_pooled() -> None:
    fit = fit_isotonic(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert fit.apply(np.array([0.1, 0.2, 0.25, 0.3, 0.9, 1.0])) == pytest.approx([0, 0.5, 0.5, 0.5, 1, 1])
    assert len(fit.at) == 4


@given(pairs)
def test_it_never_falls_and_never_fits_worse_than_saying_nothing(pairs: list[tuple[float, bool]]) -> None:
    confidence, outcome = np.array([c for c, _ in pairs]), np.array([float(o) for _, o in pairs])
    fit = fit_isotonic(confidence, outcome)
    assert np.all(np.diff(fit.apply(np.linspace(0, 1, 50))) >= 0)
    assert brier(fit.apply(confidence), outcome) <= brier(np.full(len(outcome), outcome.mean()), outcome) + 1e-9
    assert Isotonic.model_validate_json(fit.model_dump_json()) == fit
