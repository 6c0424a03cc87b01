from __future__ import annotations

from math import log

import pytest
from ratchet.evaluation.confidence import KINDS, Certainty, ConfidenceKind, answer_logprob


@pytest.mark.parametrize(
    ("kind", "expected"), [("mean", log(0.5)), ("sum", 5 * log(0.5)), ("min", log(0.125)), ("tail", 2 * log(0.5))]
)
def test_kinds_of_confidence_match_hand_computed_values(kind: ConfidenceKind, expected: float) -> None:
    """Five tokens; the least certain quarter of them is two: a half and an eighth."""
    tokens = (log(0.5), log(1.0), log(0.5), log(0.125), log(1.0))
    assert answer_logprob(tokens, kind) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_one_token_is_the_answer_whatever_the_kind(kind: ConfidenceKind) -> None:
    assert answer_logprob((log(0.3),), kind) == pytest.approx(log(0.3))


def test_the_temperature_pulls_towards_a_half() -> None:
    certainty = Certainty(kind="sum", temperature=2.0, threshold=0.7, precision=0.9)
    stated = certainty.confidence((log(0.9),))
    assert stated == pytest.approx(0.75)
    assert not certainty.should_abstain(stated)
    assert certainty.should_abstain(certainty.confidence((log(0.6),)))


def test_an_answer_without_log_probabilities_has_no_confidence() -> None:
    certainty = Certainty(kind="mean", temperature=1.0, threshold=0.5, precision=0.9)
    assert certainty.confidence(()) is None
    assert certainty.should_abstain(None) is None


def test_without_a_threshold_nothing_is_said_about_abstaining() -> None:
    certainty = Certainty(kind="mean", temperature=1.0, threshold=None, precision=0.9)
    assert certainty.should_abstain(0.0001) is None


@pytest.mark.parametrize("logprob", [-1e-9, -40.0, float("-inf")])
def test_a_confidence_is_no_more_extreme_than_its_items_can_show(logprob: float) -> None:
    certainty = Certainty(kind="mean", temperature=0.05, threshold=None, precision=0.9, fitted_on=98)
    stated = certainty.confidence((logprob,))
    assert stated == pytest.approx(0.99 if logprob > -1 else 0.01)


def test_a_family_with_few_items_is_not_covered() -> None:
    certainty = Certainty(kind="mean", temperature=1.0, threshold=None, precision=0.9, items={"sum": 30, "bank": 29})
    assert [certainty.covers(family) for family in ("sum", "bank", "poems")] == [True, False, False]
