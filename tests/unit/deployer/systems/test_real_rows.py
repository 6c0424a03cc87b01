"""The deployer on suites of real rows, without any trained family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ratchet.data.example import Example
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import TaskRow, VerdictRow

from tests.support.home import made_up_answer

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


@pytest.mark.parametrize("mended", ["by nobody", "by asking again", "by an operator"])
def test_a_champion_without_votes_costs_no_challenge_and_is_named(
    start_deploying: Callable[..., Any], mended: str
) -> None:
    deploying = start_deploying(suites=OWN, files=FILES)
    home, base, items = deploying.home, deploying.home.base_id(), deploying.home.suite_items("confirm")
    task = str(items[0].family)
    silent = {"metric": "judge", "correct": None, "no_vote": "the judge failed: status 401"}
    records = [
        made_up_answer(item, False, 0.95).model_copy(update=silent if item.family == task else {}) for item in items
    ]
    home.store_record(base, "confirm", tuple(records))
    with home.ledger.write() as tx:
        if mended == "by asking again":
            row = evaluation(tx.session, base, current(tx.session, "confirm").id)
            assert row is not None
            row.created_at = 0.0
        if mended == "by an operator":
            tx.session.get_one(TaskRow, task).protected = False
    judge = home.settings.judge.model_copy(update={"url": "http://judge", "model": "wise"})
    home.settings = home.settings.model_copy(update={"judge": judge})
    better = deploying.add(everything)
    deploying.sweep()
    if mended != "by nobody":
        assert deploying.verdicts() == {better: "deployed"}
        return
    assert deploying.verdicts() == {better: "refused"}
    assert deploying.challenges() == []
    with home.ledger.read() as session:
        reason = session.query(VerdictRow).filter(VerdictRow.system == "deployment").one().reason
    assert reason.startswith(f"No checkpoint can be proved safe on the task {task}: of its ")
    assert "(the judge failed: status 401). Mend that, or let checkpoints be deployed without it: `ratchet" in reason
