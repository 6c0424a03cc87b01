from __future__ import annotations

import numpy as np
import pytest
from ratchet.stats.calibration import ece, nll, reliability
from ratchet.stats.scaling import Scaling, fit_platt, fit_temperature
from scipy.special import expit, logit


def overconfident(temperature: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(17)
    truth = rng.beta(2, 1.2, 6_000)
    outcome = (rng.random(6_000) < truth).astype(float)
    return expit(logit(truth) * temperature + shift), outcome


def test_recovers_the_temperature() -> None:
    confidence, outcome = overconfident(2.5)
    fitted = fit_temperature(confidence, outcome)
    assert fitted.temperature == pytest.approx(2.5, rel=0.1)
    assert nll(fitted.apply(confidence), outcome) < nll(confidence, outcome)


def test_platt_also_removes_a_shift_that_no_temperature_can() -> None:
    confidence, outcome = overconfident(1.0, shift=2.0)
    tempered, platt = fit_temperature(confidence, outcome), fit_platt(confidence, outcome)
    errors = [ece(reliability(s.apply(confidence), outcome)) for s in (tempered, platt)]
    assert errors[1] < 0.03 < errors[0]


def test_stays_finite_when_every_answer_is_right() -> None:
    confidence = np.array([0.9, 0.99, 1.0])
    for scaling in (fit_temperature(confidence, np.ones(3)), fit_platt(confidence, np.ones(3))):
        assert np.isfinite([scaling.slope, scaling.intercept]).all()
        assert np.isfinite(scaling.apply(confidence)).all()


def test_leaves_confidence_alone_by_default() -> None:
    assert Scaling().apply(np.array([0.2, 0.7])) == pytest.approx([0.2, 0.7])
