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
    assert certainty.should_abstain(None)
    assert not certainty.model_copy(update={"threshold": None}).should_abstain(None)
