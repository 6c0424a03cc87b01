from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from deployer.gate_inputs import rulings
from deployer.selection import Challenge, Wait
from ratchet.ledger import Transaction, operator_actions
from ratchet.ledger.tables import (
    ChallengeRow,
    CheckpointRow,
    EvaluationRow,
    RegressionRow,
    SuiteRow,
    TaskRow,
    VerdictRow,
)
from ratchet.stats.paired_tests import alpha_spent
from ratchet.systems import dead_letters

from tests.support.rows import dead_letter, verdict, worker_row

from .knowing import by_luck, easy, everything, nothing


def test_the_base_model_is_live_before_anything_is_trained(deploying: Any) -> None:
    base = deploying.home.base_id()
    assert "checkpoint.deployed" in deploying.sweep()
    assert deploying.server.live() == deploying.desired().actual_id == base
    assert deploying.verdicts() == {}


def test_the_first_better_checkpoint_replaces_the_base_model(deploying: Any) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    better = deploying.add(easy)
    heard = deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert heard.count("checkpoint.deployed") == 1
    row = deploying.desired()
    assert (row.desired_id, row.previous_id, row.actual_id, row.proved) == (better, base, better, True)
    assert (row.canary_id, row.canary_passed) == (better, True)
    assert deploying.deployments() == [("base", base), ("deploy", better)]
    assert deploying.challenges() == [(better, 1, "promote")]
    assert deploying.server.live() == better
    assert deploying.server.loaded() == {base, better}


def test_the_gate_waits_for_a_plug_in_judge_on_another_host(deploying: Any) -> None:
    """This process cannot import it; its worker has registered what it is."""
    with deploying.home.ledger.write() as tx:
        tx.session.add(worker_row("taste", tx.now, declaration={"is_judge": True, "per_checkpoint": True}))
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.verdicts() == {}
    with deploying.home.ledger.write() as tx:
        tx.session.add(verdict("taste", "checkpoint", better, "fine"))
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}


def test_each_deployment_carries_the_numbers_that_proved_it(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    with deploying.home.ledger.read() as session:
        verdict = (
            session.query(VerdictRow).where(VerdictRow.subject_id == better, VerdictRow.system == "deployment").one()
        )
    evidence = verdict.numbers["evidence"]
    assert verdict.reason.startswith("Proved better: 60 gains and 0 losses on 120 items")
    assert evidence["alpha_k"] == pytest.approx(alpha_spent(0.05, 1))
    assert evidence["targets"][0]["n"] == 120


def test_a_replaced_champion_stays_as_the_rollback_target(deploying: Any) -> None:
    base = deploying.home.base_id()
    first = deploying.add(easy)
    deploying.sweep()
    second = deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {first: "deployed", second: "deployed"}
    assert deploying.server.live() == second
    assert deploying.server.loaded() == {first, second}
    assert base not in deploying.server.loaded()
    assert deploying.desired().previous_id == first
    assert deploying.challenges() == [(first, 1, "promote"), (second, 1, "promote")]


def test_an_unpromising_checkpoint_spends_no_error_budget(deploying: Any) -> None:
    same = deploying.add(nothing)
    deploying.sweep()
    assert deploying.verdicts() == {same: "screened out"}
    assert deploying.challenges() == []
    assert deploying.confirm_uses() == 0
    assert deploying.server.live() == deploying.home.base_id()


def test_a_refused_challenge_lowers_the_next_alpha(deploying: Any) -> None:
    lucky = deploying.add(by_luck)
    heard = deploying.sweep()
    assert "deployment.refused" in heard
    better = deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {lucky: "refused", better: "deployed"}
    assert deploying.challenges() == [(lucky, 1, "refuse"), (better, 2, "promote")]
    assert deploying.confirm_uses() == 2
    with deploying.home.ledger.read() as session:
        numbers = session.query(ChallengeRow).where(ChallengeRow.k == 2).one().numbers
    assert numbers["evidence"]["alpha_k"] == pytest.approx(alpha_spent(0.05, 2))


def test_a_challenge_that_was_open_at_a_crash_is_counted_once(deploying: Any) -> None:
    better = deploying.add(easy)
    heard = [event.name for event in deploying.bus(without_testing=True).sweep()]
    assert heard.count("evaluation.requested") >= 2
    assert deploying.challenges() == [(better, 1, None)]
    for _ in range(3):
        deploying.bus(without_testing=True).sweep()
    assert deploying.challenges() == [(better, 1, None)]
    assert deploying.confirm_uses() == 1
    deploying.sweep()
    assert deploying.challenges() == [(better, 1, "promote")]
    assert deploying.verdicts() == {better: "deployed"}


def test_what_a_contender_waits_for_is_logged_once(deploying: Any, caplog: pytest.LogCaptureFixture) -> None:
    deploying.sweep()
    with deploying.home.ledger.write() as tx:
        operator_actions.freeze(tx, "holidays")
    better = deploying.add(easy)
    with caplog.at_level(logging.INFO, logger="deployer.systems.deployment"):
        deploying.sweep()
        deploying.sweep()
    waits = [record.getMessage() for record in caplog.records if "holidays" in record.getMessage()]
    assert waits == [f"checkpoint/{better} waits for `ratchet deploy unfreeze` (frozen: holidays)"]


def test_no_challenge_opens_while_frozen_and_they_continue_after(deploying: Any) -> None:
    base = deploying.home.base_id()
    with deploying.home.ledger.write() as tx:
        operator_actions.freeze(tx, "holidays")
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.verdicts() == {}
    assert deploying.challenges() == []
    assert deploying.server.live() == base
    with deploying.home.ledger.write() as tx:
        operator_actions.unfreeze(tx, "back")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}


def test_a_champions_record_that_is_lost_is_made_again_and_the_challenge_continues(deploying: Any) -> None:
    deploying.sweep()
    with deploying.home.ledger.read() as session:
        row = session.query(EvaluationRow).where(EvaluationRow.checkpoint_id == deploying.home.base_id()).one()
    deploying.home.artifacts.delete(row.artifact)
    better = deploying.add(easy)
    deploying.sweep()
    deploying.sweep()
    assert deploying.home.dead() == []
    assert deploying.verdicts() == {better: "deployed"}


def meanwhile(deploying: Any, checkpoint: str, act: Callable[[Transaction], object]) -> None:
    """A human acts while the checkpoint's smoke test runs."""
    model = deploying.model(checkpoint)

    def asked() -> None:
        model.asked = lambda: None
        with deploying.home.ledger.write() as tx:
            act(tx)

    model.asked = asked


def test_a_freeze_in_the_middle_of_a_challenge_holds_the_deployment_back(deploying: Any) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    better = deploying.add(easy)
    meanwhile(deploying, better, lambda tx: operator_actions.freeze(tx, "holidays"))
    deploying.sweep()
    assert deploying.server.live() == deploying.desired().desired_id == base
    assert deploying.verdicts() == {}
    with deploying.home.ledger.write() as tx:
        operator_actions.unfreeze(tx, "back")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.challenges() == [(better, 1, "promote")]


def test_a_manual_deployment_during_a_challenge_becomes_the_new_champion_to_challenge(deploying: Any) -> None:
    deploying.sweep()
    by_hand = deploying.add(easy)
    better = deploying.add(easy)
    row = deploying.checkpoint(by_hand)
    meanwhile(deploying, better, lambda tx: operator_actions.deploy(tx, row, "I like it", force=True))
    deploying.sweep()
    assert deploying.server.live() == deploying.desired().desired_id == by_hand
    assert deploying.verdicts()[better] == "screened out"


def test_a_rollback_to_an_unproved_champion_leaves_it_unproved(deploying: Any) -> None:
    deploying.sweep()
    by_hand = deploying.add(nothing)
    with deploying.home.ledger.write() as tx:
        operator_actions.deploy(tx, tx.session.get_one(CheckpointRow, by_hand), "I like it", force=True)
    deploying.sweep()
    bad = deploying.add(easy)
    deploying.model(bad).drifts = lambda: deploying.server.live() == bad
    deploying.sweep()
    assert deploying.verdicts()[bad] == "rolled back"
    assert (deploying.desired().desired_id, deploying.desired().proved) == (by_hand, False)


def test_older_ones_are_superseded_by_the_candidate_and_by_a_newer_champion(deploying: Any) -> None:
    oldest, older, best = deploying.add(nothing), deploying.add(easy), deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {best: "deployed", older: "superseded", oldest: "superseded"}
    assert deploying.challenges() == [(best, 1, "promote")]


def test_a_regressed_checkpoint_is_refused_without_a_challenge(deploying: Any) -> None:
    first = deploying.add(everything)
    deploying.sweep()
    worse = deploying.add(easy)
    deploying.sweep()
    with deploying.home.ledger.read() as session:
        assert session.get_one(RegressionRow, worse).severity == "critical"
    assert deploying.verdicts() == {first: "deployed", worse: "refused"}
    assert deploying.confirm_uses() == 1


def test_a_checkpoint_with_deleted_files_does_not_block_others(deploying: Any) -> None:
    better, gone = deploying.add(easy), deploying.add(easy)
    with deploying.home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, gone).state = "deleted"
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed", gone: "superseded"}


def test_a_record_that_testing_gave_up_does_not_block_others(deploying: Any) -> None:
    """The better one's confirm record was dead-lettered: the newer, lower-ranked one has its challenge meanwhile."""
    missed = {item.id for item in deploying.home.suite_items("eval")[::20]}
    best = deploying.add(everything)
    deploying.bus(without_testing=True).sweep()
    assert deploying.challenges() == [(best, 1, None)]
    give_up(deploying, best)
    newer = deploying.add(lambda item: item.id not in missed)
    deploying.sweep()
    assert deploying.verdicts()[newer] == "deployed"
    assert deploying.verdicts()[best] == "superseded"
    assert deploying.challenges() == [(best, 1, "superseded"), (newer, 2, "promote")]


def test_a_record_that_testing_gave_up_is_waited_for_until_a_human_retries_it(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.bus(without_testing=True).sweep()
    letter = give_up(deploying, better)
    deploying.sweep()
    assert deploying.verdicts() == {}
    with deploying.home.ledger.write() as tx:
        dead_letters.retry(tx, letter, "a human")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.challenges() == [(better, 1, "promote")]


def test_challenges_are_held_where_testing_gave_up_on_the_bases_record_of_general_items(deploying: Any) -> None:
    def ruling() -> Any:
        with deploying.home.ledger.read() as session:
            return rulings(session)[better]

    deploying.add(easy)
    deploying.sweep()
    letter = give_up(deploying, deploying.home.base_id())
    better = deploying.add(everything)
    deploying.bus(without_testing=True).sweep()
    assert ruling() == Challenge()
    with deploying.home.ledger.write() as tx:
        task = {"metric": "loss", "grader": None, "pattern": None, "source": "", "rows": 9, "held_rows": 9}
        times = {"created_at": tx.now, "updated_at": tx.now}
        tx.session.add(TaskRow(name="general", kind="general", held_out={"confirm": "rows"}, **task, **times))
    assert ruling() == Wait("`ratchet dead retry`: testing gave up on the base model's confirm record")
    with deploying.home.ledger.write() as tx:
        dead_letters.retry(tx, letter, "a human")
    assert ruling() == Challenge()


def give_up(deploying: Any, checkpoint: str) -> int:
    """Dead-letter the request for the checkpoint's confirm record."""
    with deploying.home.ledger.write() as tx:
        suite = tx.session.query(SuiteRow).filter_by(pool="confirm").one().id
        letter = dead_letter("testing", "request", f"{checkpoint}/{suite}/1", tx.now, error="out of memory")
        tx.session.add(letter)
        tx.session.flush()
        return letter.id
