"""Calibration errors, recalibration and abstention: hand-computed values, properties, and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ratchet.stats.calibration import (
    Isotonic,
    Scaling,
    area_under,
    auroc,
    brier,
    downsampled,
    ece,
    fit_isotonic,
    fit_platt,
    fit_temperature,
    mce,
    nll,
    reliability,
    risk_coverage,
    threshold_for,
)
from scipy.special import expit, logit
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

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


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    assert [b.n for b in reliability(np.array([1.0, 0.0]), np.array([1.0, 0.0]))] == [1, 1]


def test_scores_match_hand_computed_values() -> None:
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


def test_isotonic_pools_adjacent_violators() -> None:
    fit = fit_isotonic(np.array([0.1, 0.2, 0.3, 0.9]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert fit.apply(np.array([0.1, 0.2, 0.25, 0.3, 0.9, 1.0])) == pytest.approx([0, 0.5, 0.5, 0.5, 1, 1])
    assert len(fit.at) == 4


@given(pairs)
def test_isotonic_is_monotone_and_never_fits_worse_than_the_identity(pairs: list[tuple[float, bool]]) -> None:
    confidence, outcome = np.array([c for c, _ in pairs]), np.array([float(o) for _, o in pairs])
    fit = fit_isotonic(confidence, outcome)
    assert np.all(np.diff(fit.apply(np.linspace(0, 1, 50))) >= 0)
    assert brier(fit.apply(confidence), outcome) <= brier(np.full(len(outcome), outcome.mean()), outcome) + 1e-9
    assert Isotonic.model_validate_json(fit.model_dump_json()) == fit


def overconfident(temperature: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(17)
    truth = rng.beta(2, 1.2, 6_000)
    outcome = (rng.random(6_000) < truth).astype(float)
    return expit(logit(truth) * temperature + shift), outcome


def test_temperature_scaling_recovers_the_temperature() -> None:
    confidence, outcome = overconfident(2.5)
    fitted = fit_temperature(confidence, outcome)
    assert fitted.temperature == pytest.approx(2.5, rel=0.1)
    assert nll(fitted.apply(confidence), outcome) < nll(confidence, outcome)


def test_platt_also_removes_a_shift_that_no_temperature_can() -> None:
    confidence, outcome = overconfident(1.0, shift=2.0)
    tempered, platt = fit_temperature(confidence, outcome), fit_platt(confidence, outcome)
    errors = [ece(reliability(s.apply(confidence), outcome)) for s in (tempered, platt)]
    assert errors[1] < 0.03 < errors[0]


def test_temperature_stays_finite_when_every_answer_is_right() -> None:
    confidence = np.array([0.9, 0.99, 1.0])
    for scaling in (fit_temperature(confidence, np.ones(3)), fit_platt(confidence, np.ones(3))):
        assert np.isfinite([scaling.slope, scaling.intercept]).all()
        assert np.isfinite(scaling.apply(confidence)).all()


def test_the_default_scaling_changes_nothing() -> None:
    assert Scaling().apply(np.array([0.2, 0.7])) == pytest.approx([0.2, 0.7])


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([c for c, _ in pairs]), np.array([float(o) for _, o in pairs])


def test_auroc_with_a_tie_matches_a_hand_computed_value() -> None:
    assert auroc(np.array([0.9, 0.5, 0.5, 0.1]), np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx(3.5 / 4)
    assert auroc(np.array([0.2, 0.3]), np.ones(2)) is None


def test_risk_falls_with_coverage_for_informative_confidence() -> None:
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
    assert downsampled(curve)[-1] == curve[-1]
    assert len(downsampled(curve)) <= 21


def test_the_threshold_reaches_its_precision_with_margin() -> None:
    """Sure answers right in 98 of 100, unsure ones in half of the cases: 90 % is promised for the sure ones alone."""
    confidence = np.array([0.95] * 100 + [0.4] * 100)
    outcome = np.array([1.0] * 98 + [0.0] * 2 + [1.0, 0.0] * 50)
    found = threshold_for(risk_coverage(confidence, outcome), 0.9)
    assert found is not None
    assert (found.threshold, found.coverage) == (0.95, 0.5)


def test_a_few_right_answers_support_no_threshold() -> None:
    assert threshold_for(risk_coverage(np.array([0.9] * 5 + [0.1] * 50), np.array([1.0] * 5 + [0.0] * 50)), 0.9) is None


@pytest.mark.parametrize("seed", range(6))
def test_errors_and_auroc_agree_with_torchmetrics(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1 + seed / 2, 400)
    outcome = (rng.random(400) < confidence**1.5).astype(float)
    diagram = reliability(confidence, outcome, bins=10 + seed)
    stated, truth = torch.tensor(confidence), torch.tensor(outcome, dtype=torch.int64)
    for norm, ours in (("l1", ece(diagram)), ("max", mce(diagram))):
        theirs = binary_calibration_error(stated, truth, n_bins=10 + seed, norm=norm)
        assert ours == pytest.approx(float(theirs), abs=1e-6)
    assert auroc(confidence, outcome) == pytest.approx(float(binary_auroc(stated, truth)), abs=1e-6)
