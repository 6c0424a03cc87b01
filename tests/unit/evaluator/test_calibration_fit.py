from __future__ import annotations

import numpy as np
import pytest
from evaluator import calibration_fit
from evaluator.calibration_fit import CalibrationFit, Uncalibrated, confidences
from ratchet.evaluation.record import Evaluation, in_selection_split
from ratchet.settings.judging import CalibrationSettings
from scipy.special import expit, logit

from tests.support.records import evaluation


def overconfident(n: int = 1_500, factor: float = 3.0) -> Evaluation:
    rng = np.random.default_rng(2)
    truth = {("sum", 1): rng.beta(6, 1.5, n), ("sum", 2): rng.beta(2, 2, n)}
    grades = {cell: list(map(bool, rng.random(n) < p)) for cell, p in truth.items()}
    stated = {cell: list(np.clip(expit(factor * logit(p)), 1e-9, 1 - 1e-9)) for cell, p in truth.items()}
    return evaluation("a", grades, stated)


def calibrate(record: Evaluation, settings: CalibrationSettings | None = None) -> CalibrationFit:
    found = calibration_fit.calibrate(record, settings)
    assert isinstance(found, CalibrationFit), found
    return found


def reason(record: Evaluation) -> str:
    """Why nothing is fitted."""
    found = calibration_fit.calibrate(record)
    assert isinstance(found, Uncalibrated)
    assert found.shipped is None
    return found.reason


def test_the_temperature_undoes_overconfidence_on_items_it_never_saw() -> None:
    calibration = calibrate(overconfident())
    assert calibration.temperature == pytest.approx(3.0, rel=0.2)
    assert calibration.raw.ece > 0.08
    assert calibration.tempered.ece < calibration.raw.ece / 2
    assert calibration.tempered.brier < calibration.raw.brier
    assert calibration.fitted_on + calibration.raw.n == 3_000
    assert sum(b.n for b in calibration.diagram) == calibration.raw.n


def test_levels_add_up_to_the_testing_half() -> None:
    calibration = calibrate(overconfident())
    assert [(level.family, level.level) for level in calibration.by_level] == [("sum", 1), ("sum", 2)]
    assert sum(level.n for level in calibration.by_level) == calibration.tempered.n
    assert all(abs(level.confidence - level.accuracy) < 0.08 for level in calibration.by_level)


def test_confidences_match_hand_computed_values() -> None:
    item = overconfident(n=1).items[0].model_copy(update={"token_logprobs": (np.log(0.9), np.log(0.4))})
    by_kind = {kind: confidences([item], kind)[0] for kind in ("mean", "sum", "min")}
    assert by_kind == pytest.approx({"mean": 0.6, "sum": 0.36, "min": 0.4})


def test_the_kind_that_predicts_best_is_chosen() -> None:
    record = overconfident(n=600)
    rng = np.random.default_rng(4)
    noisy = [
        item.model_copy(
            update={"token_logprobs": (item.token_logprobs[0], *(-1e-4 for _ in range(rng.integers(1, 60))))}
        )
        for item in record.items
    ]
    assert calibrate(record.model_copy(update={"items": tuple(noisy)})).kind in ("sum", "min")


def test_items_without_log_probabilities_are_counted_and_left_out() -> None:
    record = overconfident(n=100)
    items = tuple(i.model_copy(update={"token_logprobs": ()}) if n % 4 == 0 else i for n, i in enumerate(record.items))
    calibration = calibrate(record.model_copy(update={"items": items}))
    assert calibration.unscored == 50
    assert calibration.fitted_on + calibration.raw.n == 150


def test_items_without_a_grade_are_left_out() -> None:
    """Those of a task that is measured by loss or by a judge are neither right nor wrong."""
    record = overconfident(n=100)
    poem = {"family": "poems", "metric": "loss", "correct": None}
    items = tuple(i.model_copy(update=poem) if n % 4 == 0 else i for n, i in enumerate(record.items))
    calibration = calibrate(record.model_copy(update={"items": items}))
    assert calibration.unscored == 50
    assert calibration.shipped.items == {"sum": 150}
    assert CalibrationFit.model_validate_json(calibration.model_dump_json()) == calibration


def test_with_few_items_nothing_is_fitted() -> None:
    few = evaluation("a", {("sum", 1): [True, False] * 20})
    assert "and each needs 30: hold out more rows" in reason(few)
    assert "0 and 0 items" in reason(few.model_copy(update={"items": ()}))


@pytest.mark.parametrize(("grade", "says"), [(True, "no error to predict"), (False, "no success to predict")])
def test_with_one_outcome_nothing_is_fitted(grade: bool, says: str) -> None:
    assert says in reason(evaluation("a", {("sum", 1): [grade] * 120}))


def test_what_is_shipped_counts_the_items_that_it_rests_on() -> None:
    found = calibrate(overconfident(n=100))
    assert found.shipped.items == {"sum": 200}
    assert found.shipped.fitted_on == found.fitted_on


def test_the_shipped_threshold_reaches_its_precision_on_the_test_split() -> None:
    found = calibrate(overconfident(), CalibrationSettings(precision=0.9))
    assert found.shipped.threshold is not None
    assert found.abstention is not None
    assert found.abstention.precision is not None
    assert found.abstention.precision >= 0.88
    assert 0.1 < found.abstention.coverage < 0.95
    assert found.raw.accuracy < 0.8, "without abstaining the promise would not hold"


def test_a_higher_precision_means_more_abstention() -> None:
    promised = [calibrate(overconfident(), CalibrationSettings(precision=p)).abstention for p in (0.8, 0.95)]
    coverage = [0.0 if found is None else found.coverage for found in promised]
    assert coverage[0] > coverage[1]


def test_a_served_answer_gets_the_confidence_that_was_measured() -> None:
    record = overconfident(n=200)
    found = calibrate(record)
    items = [item for item in record.items if not in_selection_split(item.item_id)]
    served = [found.shipped.confidence(item.token_logprobs) for item in items]
    assert np.mean(np.array(served, float)) == pytest.approx(found.tempered.confidence)


def test_a_model_that_is_seldom_right_has_no_threshold() -> None:
    found = calibrate(evaluation("a", {("sum", 1): [True, *[False] * 9] * 12}))
    assert (found.shipped.threshold, found.abstention) == (None, None)
    stated = found.shipped.confidence((np.log(0.9),))
    assert stated is not None
    assert stated == pytest.approx(0.53, abs=0.02)
    assert found.shipped.should_abstain(stated) is None


def test_isotonic_corrects_a_shape_that_one_temperature_cannot() -> None:
    """A level that is always right at 0.6 and one that is right in half of the cases at 0.9."""
    rng = np.random.default_rng(5)
    grades = {("sum", 1): [True] * 400, ("sum", 2): list(map(bool, rng.random(400) < 0.5))}
    found = calibrate(evaluation("a", grades, {("sum", 1): [0.6] * 400, ("sum", 2): [0.9] * 400}))
    assert found.tempered.ece > 0.1
    assert found.isotonic.ece < found.tempered.ece
    assert found.raw.auroc is not None
    assert found.raw.auroc < 0.5
