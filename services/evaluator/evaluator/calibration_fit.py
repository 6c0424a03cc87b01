"""Fits and measures confidence: token log-probabilities of the answers against graded success.

The kind of confidence and the recalibration are fitted on the selection split of the items, and every reported number
is measured on the test split. Items that are not graded right or wrong (metrics loss and judge) say nothing about
either. With few items, or with one outcome only, nothing is fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from ratchet.evaluation.confidence import (
    KINDS,
    MIN_ITEMS,
    Certainty,
    ConfidenceKind,
    answer_logprob,
    least_margin,
)
from ratchet.evaluation.record import Evaluation, ItemRecord, in_selection_split
from ratchet.settings.judging import CalibrationSettings
from ratchet.stats.calibration import (
    Bin,
    CoveragePoint,
    Floats,
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
from ratchet.stats.proportions import Interval, wilson


class Reliability(BaseModel):
    """Numbers of one set of confidences.

    ``ece`` weights each bin by its count; the bins of ``ece_equal_mass`` hold equally many items. ``auroc`` is the
    chance that a right answer is surer than a wrong one, None where all were right or all wrong; ``aurc`` the mean
    risk over all coverages.
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
    auroc: float | None
    aurc: float


class Abstention(BaseModel):
    """What the shipped threshold does on the test split, which it was not chosen on.

    ``coverage`` is the share of items that are answered, ``precision`` how many of those are right (None where none
    is answered), with its interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: float
    threshold: float
    n: int
    coverage: float
    precision: float | None
    interval: Interval | None


class LevelReliability(BaseModel):
    """One level after the temperature."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    n: int
    accuracy: float
    confidence: float
    brier: float


class CalibrationFit(BaseModel):
    """``kind`` of token log-probability a confidence is made of (``ratchet.evaluation.confidence``).

    ``raw``, ``tempered``, ``platt_scaled`` and ``isotonic`` are all measured on the test split; ``diagram``,
    ``diagram_equal_mass`` and ``curve`` (risk by coverage) belong to ``tempered``, ``raw_diagram`` to ``raw``.
    ``shipped`` goes out with a deployment; ``abstention`` says what its threshold does, None where it has none.
    ``losses`` has the negative log-likelihood of each kind on the selection split. ``unscored`` items had no grade
    or no token log-probabilities and are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    kind: ConfidenceKind
    losses: dict[str, float]
    temperature: float
    platt: Scaling
    isotonic_fit: Isotonic
    raw: Reliability
    tempered: Reliability
    platt_scaled: Reliability
    isotonic: Reliability
    by_level: tuple[LevelReliability, ...]
    raw_diagram: tuple[Bin, ...]
    diagram: tuple[Bin, ...]
    diagram_equal_mass: tuple[Bin, ...]
    curve: tuple[CoveragePoint, ...]
    shipped: Certainty
    abstention: Abstention | None
    fitted_on: int
    unscored: int


class Uncalibrated(BaseModel):
    """Why a checkpoint has no calibration. ``items`` are those that could have been used, and ``right`` those of them
    that were answered right, in the selection and the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint_id: str
    reason: str
    items: tuple[int, int]
    right: tuple[int, int]
    shipped: None = None


def calibrate(evaluation: Evaluation, settings: CalibrationSettings | None = None) -> CalibrationFit | Uncalibrated:
    """Fit on one half of the graded items, and measure on the other."""
    halves = _splits(evaluation)
    if reason := _shortage(halves):
        return Uncalibrated(
            checkpoint_id=evaluation.checkpoint_id,
            reason=reason,
            items=(len(halves[0]), len(halves[1])),
            right=(_right(halves[0]), _right(halves[1])),
        )
    selection, test = halves
    losses, temperature = _choose(selection)
    kind = min(KINDS, key=lambda one: losses[one])
    fitted, known = confidences(selection, kind), _outcomes(selection)
    platt, isotonic = fit_platt(fitted, known), fit_isotonic(fitted, known)
    raw, outcome = confidences(test, kind), _outcomes(test)
    tempered = _stated(temperature[kind], raw, len(selection))
    precision = (settings or CalibrationSettings()).precision
    shipped = Certainty(
        kind=kind,
        temperature=temperature[kind].temperature,
        threshold=_threshold(_stated(temperature[kind], fitted, len(selection)), known, precision),
        precision=precision,
        fitted_on=len(selection),
        items=dict(sorted(Counter(item.family for item in (*selection, *test)).items())),
    )
    return CalibrationFit(
        checkpoint_id=evaluation.checkpoint_id,
        kind=kind,
        losses={str(one): losses[one] for one in KINDS},
        temperature=temperature[kind].temperature,
        platt=platt,
        isotonic_fit=isotonic,
        raw=_measure(raw, outcome),
        tempered=_measure(tempered, outcome),
        platt_scaled=_measure(platt.apply(raw), outcome),
        isotonic=_measure(isotonic.apply(raw), outcome),
        by_level=_by_level(test, tempered),
        raw_diagram=tuple(reliability(raw, outcome)),
        diagram=tuple(reliability(tempered, outcome)),
        diagram_equal_mass=tuple(reliability(tempered, outcome, binning="equal_mass")),
        curve=tuple(downsampled(risk_coverage(tempered, outcome))),
        shipped=shipped,
        abstention=_abstention(shipped, tempered, outcome),
        fitted_on=len(selection),
        unscored=len(evaluation.items) - len(selection) - len(test),
    )


def _splits(evaluation: Evaluation) -> tuple[list[ItemRecord], list[ItemRecord]]:
    """The graded items with log-probabilities, in two halves."""
    usable = [item for item in evaluation.items if item.token_logprobs and item.correct is not None]
    selection = [item for item in usable if in_selection_split(item.item_id)]
    test = [item for item in usable if not in_selection_split(item.item_id)]
    return selection, test


def _right(items: Sequence[ItemRecord]) -> int:
    return sum(item.correct is True for item in items)


def _shortage(halves: Sequence[Sequence[ItemRecord]]) -> str | None:
    """Why nothing can be fitted to these halves; None if it can."""
    counts = [len(half) for half in halves]
    if min(counts) < MIN_ITEMS:
        return (
            f"the eval suite has {counts[0]} and {counts[1]} items graded right or wrong in its two halves, and each "
            f"needs {MIN_ITEMS}: hold out more rows"
        )
    right = [_right(half) for half in halves]
    if 0 in right:
        return (
            f"{right[0]} of {counts[0]} and {right[1]} of {counts[1]} items are right: there is no success to predict"
        )
    if any(hits == count for hits, count in zip(right, counts, strict=True)):
        return f"{right[0]} of {counts[0]} and {right[1]} of {counts[1]} items are right: there is no error to predict"
    return None


def confidences(items: Sequence[ItemRecord], kind: ConfidenceKind) -> Floats:
    """One probability an item, from its token log-probabilities."""
    return np.exp(np.array([answer_logprob(item.token_logprobs, kind) for item in items], dtype=np.float64))


def _stated(temperature: Scaling, confidence: Floats, fitted_on: int) -> Floats:
    """Confidences as they are stated to clients (Certainty.confidence)."""
    margin = least_margin(fitted_on)
    return np.clip(temperature.apply(confidence), margin, 1 - margin)


def _threshold(stated: Floats, known: Floats, precision: float) -> float | None:
    found = threshold_for(risk_coverage(stated, known), precision)
    return found.threshold if found else None


def _abstention(shipped: Certainty, tempered: Floats, outcome: Floats) -> Abstention | None:
    if shipped.threshold is None:
        return None
    answered = outcome[tempered >= shipped.threshold]
    right, n = int(answered.sum()), len(answered)
    return Abstention(
        wanted=shipped.precision,
        threshold=shipped.threshold,
        n=n,
        coverage=n / len(outcome),
        precision=right / n if n else None,
        interval=wilson(right, n) if n else None,
    )


def _outcomes(items: Sequence[ItemRecord]) -> Floats:
    return np.array([item.correct for item in items], dtype=np.float64)


def _choose(items: Sequence[ItemRecord]) -> tuple[dict[ConfidenceKind, float], dict[ConfidenceKind, Scaling]]:
    """For each kind of confidence its negative log-likelihood once its temperature is fitted, and that temperature."""
    outcome = _outcomes(items)
    stated = {kind: confidences(items, kind) for kind in KINDS}
    fits = {kind: fit_temperature(stated[kind], outcome) for kind in KINDS}
    return {kind: nll(fits[kind].apply(stated[kind]), outcome) for kind in KINDS}, fits


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
        auroc=auroc(confidence, outcome),
        aurc=area_under(risk_coverage(confidence, outcome)),
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
