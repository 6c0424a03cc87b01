from __future__ import annotations

import pytest
from ratchet.evaluation.record import Evaluation
from ratchet.settings.judging import GateSettings
from ratchet.verdict.compare import verdict_of_records

from tests.support.records import evaluation, item_record


def losses(name: str, nats: float, tokens: int, count: int = 60) -> Evaluation:
    """A record whose items each have that loss in all, spread over so many tokens of its tokenizer."""
    plain = evaluation(name, {("notes", 1): [True]})
    items = tuple(
        item_record(
            item_id=str(n), family="notes", metric="loss", correct=None, gold_nll=nats / tokens, gold_tokens=tokens
        )
        for n in range(count)
    )
    return plain.model_copy(update={"items": items})


def test_longer_tokens_are_no_larger_loss() -> None:
    """The same text with the same probability in all, of two tokenizers."""
    found = verdict_of_records(losses("candidate", 24.0, 6), losses("base", 24.0, 12), GateSettings())
    assert found.targets[0].effect == pytest.approx(0.0)
    assert found.verdict == "not better"


def test_a_more_likely_text_is_better_whatever_its_tokens() -> None:
    found = verdict_of_records(losses("candidate", 18.0, 6), losses("base", 24.0, 12), GateSettings())
    assert found.targets[0].effect == pytest.approx(0.5)
    assert found.verdict == "better"


def test_other_conditions_are_told_and_not_refused() -> None:
    base = evaluation("base", {("menus", 1): [False] * 40 + [True] * 60})
    candidate = evaluation("candidate", {("menus", 1): [True] * 100})
    remote = candidate.model_copy(update={"key": candidate.key.model_copy(update={"engine": "openai-api"})})
    found = verdict_of_records(remote, base, GateSettings())
    assert found.verdict == "better"
    assert "different conditions" in found.notes[-1]
    assert found.conditions["candidate"]["engine"] == "openai-api"
    assert not verdict_of_records(candidate, base, GateSettings()).notes


def test_the_whole_of_alpha_is_spent_on_the_only_question() -> None:
    base = evaluation("base", {("menus", 1): [False] * 5 + [True] * 95})
    found = verdict_of_records(evaluation("candidate", {("menus", 1): [True] * 100}), base, GateSettings(alpha=0.04))
    assert found.targets[0].alpha == 0.04
    assert found.verdict == "better"
    assert "challenge" not in " ".join(found.reasons)
