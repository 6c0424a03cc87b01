"""Numbers of verdicts in words: their signs say what people expect of the measure."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.views.proof import proof_of
from ratchet.views.verdict_numbers import readable

TARGET = {"task": "notes", "effect": 0.12, "n": 40, "p": 0.01, "alpha": 0.05}


@pytest.mark.parametrize(
    ("metric", "told"), [("loss", "-0.120 nats/token on 40 items"), ("accuracy", "+12.0 points on 40 items")]
)
def test_a_better_loss_is_a_fall(metric: str, told: str) -> None:
    """The stored effect is that of a score, which is higher where the loss is lower."""
    target: dict[str, Any] = {**TARGET, "metric": metric}
    ((name, value),) = readable("deployment", {"targets": [{"target": target}]}).facts
    assert name == "notes"
    assert value.startswith(told)
    proof = proof_of({"evidence": {"targets": [target]}})
    assert proof is not None
    assert proof.targets[0].change == told.partition(" on ")[0].replace("/token", "")
