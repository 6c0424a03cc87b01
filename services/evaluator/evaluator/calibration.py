"""Does a checkpoint know what it knows? Confidence from token log-probabilities against graded success.

The kind of confidence and the recalibration are fitted on the choosing half of the items, and every reported number is
measured on the testing half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from ratchet.errors import EmptyEvaluation
from ratchet.evaluation.halves import is_choosing
from ratchet.evaluation.record import Evaluation, ItemRecord
from ratchet.stats.calibration import Bin, Floats, brier, ece, mce, nll, reliability
from ratchet.stats.scaling import Scaling, fit_platt, fit_temperature

Confidence = Literal["mean", "sum", "min"]
CONFIDENCES: tuple[Confidence, ...] = ("mean", "sum", "min")


class Reliability(BaseModel):
    """Numbers of one set of confidences.

    ``ece`` weights each bin by its count; the bins of ``ece_equal_mass`` hold equally many items.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n: int
    accuracy: float
    confidence: float
    ece: float
    ece_equal_mass: float
    mce: float
    brier: float
    nll: float


class LevelReliability(BaseModel):
    """One level after the temperature; ``overconfidence`` is mean confidence minus accuracy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    n: int
    accuracy: float
    confidence: float
    brier: float

    @property
    def overconfidence(self) -> float:
        return self.confidence - self.accuracy


class Calibration(BaseModel):
    """``kind`` of token log-probability a confidence is made of: exp of their mean, sum or minimum.

    ``raw``, ``tempered`` and ``platt_scaled`` are all measured on the testing half; ``diagram`` belongs to
    ``tempered``. ``unscored`` items had no token log-probabilities and are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    kind: Confidence
    temperature: float
    platt: Scaling
    raw: Reliability
    tempered: Reliability
    platt_scaled: Reliability
    by_level: tuple[LevelReliability, ...]
    diagram: tuple[Bin, ...]
    fitted_on: int
    unscored: int


def calibrate(evaluation: Evaluation) -> Calibration:
    """Raises EmptyEvaluation where either half has no item with log-probabilities."""
    scored = [item for item in evaluation.items if item.token_logprobs]
    choosing = [item for item in scored if is_choosing(item.item_id)]
    testing = [item for item in scored if not is_choosing(item.item_id)]
    if not choosing or not testing:
        raise EmptyEvaluation(
            f"{evaluation.checkpoint_id} has {len(choosing)} and {len(testing)} items with log-probabilities in its "
            "two halves; calibration needs some in both."
        )
    kind, temperature = _choose(choosing)
    platt = fit_platt(confidences(choosing, kind), _outcomes(choosing))
    raw, outcome = confidences(testing, kind), _outcomes(testing)
    tempered = temperature.apply(raw)
    return Calibration(
        checkpoint_id=evaluation.checkpoint_id,
        kind=kind,
        temperature=temperature.temperature,
        platt=platt,
        raw=_measure(raw, outcome),
        tempered=_measure(tempered, outcome),
        platt_scaled=_measure(platt.apply(raw), outcome),
        by_level=_by_level(testing, tempered),
        diagram=tuple(reliability(tempered, outcome)),
        fitted_on=len(choosing),
        unscored=len(evaluation.items) - len(scored),
    )


def confidences(items: Sequence[ItemRecord], kind: Confidence) -> Floats:
    """One probability an item, from its token log-probabilities."""
    reduced = [_reduce(item.token_logprobs, kind) for item in items]
    return np.exp(np.minimum(np.array(reduced, dtype=np.float64), 0.0))


def _reduce(logprobs: Sequence[float], kind: Confidence) -> float:
    if kind == "min":
        return min(logprobs)
    return sum(logprobs) / (len(logprobs) if kind == "mean" else 1)


def _outcomes(items: Sequence[ItemRecord]) -> Floats:
    return np.array([item.correct for item in items], dtype=np.float64)


def _choose(items: Sequence[ItemRecord]) -> tuple[Confidence, Scaling]:
    """The kind of confidence that predicts success best once its temperature is fitted."""
    outcome = _outcomes(items)
    fits = {kind: fit_temperature(confidences(items, kind), outcome) for kind in CONFIDENCES}

    def loss(kind: Confidence) -> float:
        return nll(fits[kind].apply(confidences(items, kind)), outcome)

    best = min(CONFIDENCES, key=loss)
    return best, fits[best]


def _measure(confidence: Floats, outcome: Floats) -> Reliability:
    by_width, by_mass = reliability(confidence, outcome), reliability(confidence, outcome, binning="equal_mass")
    return Reliability(
        n=len(outcome),
        accuracy=float(outcome.mean()),
        confidence=float(confidence.mean()),
        ece=ece(by_width),
        ece_equal_mass=ece(by_mass),
        mce=mce(by_width),
        brier=brier(confidence, outcome),
        nll=nll(confidence, outcome),
    )


def _by_level(items: Sequence[ItemRecord], confidence: Floats) -> tuple[LevelReliability, ...]:
    cells: dict[tuple[str, int], list[int]] = {}
    for position, item in enumerate(items):
        cells.setdefault((item.family, item.level), []).append(position)
    outcome = _outcomes(items)
    return tuple(
        LevelReliability(
            family=family,
            level=level,
            n=len(members),
            accuracy=float(outcome[members].mean()),
            confidence=float(confidence[members].mean()),
            brier=brier(confidence[members], outcome[members]),
        )
        for (family, level), members in sorted(cells.items())
    )
