"""The deployer on suites of real rows, without any trained family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ratchet.data.example import Example
from ratchet.ledger.tables import VerdictRow

from .knowing import everything

FILES = ("gsm8k_200.jsonl", "babi_qa1_100.jsonl", "binary_100.jsonl")
OWN = {"probe_items": 20, "eval_items": 60, "confirm_items": 120}


def test_on_real_rows_a_better_model_is_deployed_and_a_forgetful_one_is_not(
    start_deploying: Callable[..., Any],
) -> None:
    deploying = start_deploying(suites=OWN, files=FILES)
    families = sorted({str(item.family) for item in deploying.home.suite_items("confirm")})
    assert len(families) > 1

    def forgetful(item: Example) -> bool:
        return str(item.family) != families[0]

    better = deploying.add(everything)
    deploying.sweep()
    assert deploying.server.live() == better
    worse = deploying.add(forgetful)
    deploying.sweep()
    assert deploying.home.dead() == []
    assert deploying.server.live() == better
    assert deploying.verdicts()[worse] != "deployed"
    with deploying.home.ledger.read() as session:
        verdict = (
            session.query(VerdictRow).where(VerdictRow.subject_id == better, VerdictRow.system == "deployment").one()
        )
    assert verdict.numbers["evidence"]["targets"][0]["n"] == len(deploying.home.suite_items("confirm"))
