"""From the decision to what clients get: canary, calibration, switch, watch, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from deployer.systems import deployment
from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.errors import Stopping
from ratchet.evaluation.confidence import Certainty
from ratchet.evaluation.load_evaluation import _cached
from ratchet.ledger import operator_actions
from ratchet.ledger.deployments import last_deployment, promote
from ratchet.ledger.tables import CalibrationRow, CheckpointRow, DeploymentRow, EvaluationRow, SuiteRow, VerdictRow
from ratchet.settings.training import MonitoringSettings
from sqlalchemy.orm import Session

from .knowing import easy, everything, nothing


def test_clients_are_answered_by_the_deployed_checkpoint(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    deploying.sweep()
    listed = httpx.get(f"{deploying.home.settings.serving.base_url}/v1/models").json()["data"]
    behind = {entry["id"]: entry["ratchet"] for entry in listed}
    assert behind["ratchet"] == {"checkpoint": better, "weights": deploying.checkpoint(better).weights}


def test_the_calibration_ships_with_a_deployment_and_with_a_rollback(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    deploying.sweep()
    live = deploying.server.manager.health().live
    assert (live.checkpoint_id, live.certainty) == (better, shipped(deploying, better))
    with deploying.home.ledger.write() as tx:
        operator_actions.rollback(tx, "to see")
    deploying.sweep()
    live = deploying.server.manager.health().live
    base = deploying.home.base_id()
    assert (live.checkpoint_id, live.certainty) == (base, None), "a model that is never right has no calibration"


def test_a_later_calibration_is_sent_to_the_server(deploying: Any) -> None:
    with deploying.home.ledger.write() as tx:
        tx.session.query(EvaluationRow).delete()
    deploying.add_base(easy)
    deploying.home.bus(DEPLOYMENT).sweep()
    assert deploying.server.manager.health().live.certainty is None
    assert deploying.sweep() == ["checkpoint.cleared", "ranking.changed", "checkpoint.calibrated"]
    certainty = deploying.server.manager.health().live.certainty
    assert certainty == shipped(deploying, deploying.home.base_id())


def shipped(deploying: Any, checkpoint: str) -> Certainty:
    with deploying.home.ledger.read() as session:
        return Certainty.model_validate(session.get_one(CalibrationRow, checkpoint).shipped)


def test_the_canary_is_asked_under_the_system_turn_of_the_day_it_was_judged(deploying: Any) -> None:
    with deploying.home.ledger.write() as tx:
        tx.session.query(SuiteRow).filter_by(pool="eval").one().created_at = 86_400.0
    monitoring = MonitoringSettings(system_prompt_base="Today is {date}.")
    deploying.home.settings = deploying.home.settings.model_copy(update={"monitoring": monitoring})
    deploying.sweep()
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.server.live() == better
    first_turns = {chat[0].content for chat in deploying.model(better).heard}
    assert first_turns == {"Today is 1970-01-02."}


def test_a_rollout_interrupted_before_the_switch_is_finished(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    with deploying.home.ledger.write() as tx:
        promote(tx, better, deploying.home.base_id(), "it was proved", {"evidence": "e"}, 5)
    assert deploying.server.live() == deploying.home.base_id()
    deploying.sweep()
    assert deploying.server.live() == better
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.deployments()[1:] == [("deploy", better)]
    with deploying.home.ledger.read() as session:
        verdict = session.query(VerdictRow).where(VerdictRow.system == "deployment").one()
    assert (verdict.reason, verdict.numbers) == ("it was proved", {"evidence": "e"})


def test_what_an_operator_deploys_as_a_rollout_is_resumed_stays(
    deploying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploying.sweep()
    chosen, better = deploying.add(nothing), deploying.add(easy)
    deploying.home.bus(REGRESSION, COMPARISON, CALIBRATION).sweep()
    with deploying.home.ledger.write() as tx:
        promote(tx, better, deploying.home.base_id(), "it was proved", {}, 5)

    def read_then_deployed(session: Session, checkpoint_id: str) -> DeploymentRow | None:
        found = last_deployment(session, checkpoint_id)
        if deploying.desired().desired_id == better:
            with deploying.home.ledger.write() as tx:
                operator_actions.deploy(tx, tx.session.get_one(CheckpointRow, chosen), "a demo", force=True)
        return found

    monkeypatch.setattr(deployment, "last_deployment", read_then_deployed)
    deploying.home.bus(DEPLOYMENT).sweep()
    assert deploying.desired().desired_id == chosen
    assert deploying.deployments()[1:] == [("deploy", better), ("deploy", chosen)]


def test_a_rollout_with_an_unreadable_record_waits_for_a_new_one(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    deploying.home.bus(REGRESSION, COMPARISON, CALIBRATION).sweep()
    with deploying.home.ledger.write() as tx:
        promote(tx, better, deploying.home.base_id(), "it was proved", {}, 5)
    with deploying.home.ledger.read() as session:
        record = (
            session.query(EvaluationRow)
            .where(EvaluationRow.checkpoint_id == better, EvaluationRow.pool == "eval")
            .one()
        )
    deploying.home.artifacts.delete(record.artifact)
    _cached.cache_clear()
    bus = deploying.home.bus(DEPLOYMENT)
    assert "evaluation.requested" in [event.name for event in bus.sweep()]
    deploying.home.add_record(better, "eval", easy)
    bus.sweep()
    assert deploying.verdicts() == {better: "deployed"}


def test_an_interrupted_watch_is_repeated_and_deploys_once(start_deploying: Callable[..., Any]) -> None:
    deploying = start_deploying(watch_s=60.0)
    deploying.sweep()
    better = deploying.add(easy)
    bus = deploying.bus()
    model, controller = deploying.model(better), bus.controllers["deployment"]
    model.asked = lambda: controller.stop.set() if deploying.server.live() == better else None
    with pytest.raises(Stopping):
        bus.sweep()
    assert deploying.verdicts() == {}
    assert deploying.server.live() == better
    model.asked = lambda: None
    deploying.do_not_watch()
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.deployments()[1:] == [("deploy", better)]
    assert deploying.challenges() == [(better, 1, "promote")]


def test_the_length_of_the_watch_follows_the_setting(start_deploying: Callable[..., Any]) -> None:
    """In no time there is one look: the canary before the switch, and one after it."""
    deploying = start_deploying(watch_s=0.0)
    deploying.sweep()
    better = deploying.add(easy)
    looks: list[bool] = []
    deploying.model(better).asked = lambda: looks.append(deploying.server.live() == better)
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert (looks.count(False), looks.count(True)) == (1, 1)


def test_a_challenger_that_fails_the_canary_is_refused_before_the_switch(deploying: Any) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    better = deploying.add(easy)
    deploying.model(better).drifts = lambda: True
    deploying.sweep()
    assert deploying.verdicts() == {better: "refused"}
    assert deploying.challenges() == [(better, 1, "refuse")]
    assert deploying.server.live() == base
    assert deploying.server.loaded() == {base}
    with deploying.home.ledger.read() as session:
        reason = session.query(VerdictRow).where(VerdictRow.system == "deployment").one().reason
    assert "The smoke test failed." in reason
    assert "log-probability differs" in reason
    row = deploying.desired()
    assert (row.canary_id, row.canary_passed) == (better, False)
    assert row.canary_difference > 0


def test_a_champion_that_fails_its_watch_is_rolled_back_and_blocked(deploying: Any) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    bad = deploying.add(easy)
    deploying.model(bad).drifts = lambda: deploying.server.live() == bad
    heard = deploying.sweep()
    assert "deployment.rolled_back" in heard
    assert deploying.verdicts() == {bad: "rolled back"}
    row = deploying.desired()
    assert (row.desired_id, row.previous_id, row.actual_id) == (base, None, base)
    assert deploying.blocked() == [bad]
    assert deploying.server.live() == base
    assert deploying.server.loaded() == {base}
    assert deploying.deployments() == [("base", base), ("deploy", bad), ("rollback", base)]


def test_what_an_operator_deploys_during_a_watch_stays_when_the_watch_fails(deploying: Any) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    chosen, bad = deploying.add(nothing), deploying.add(easy)

    def drifts() -> bool:
        if deploying.server.live() != bad:
            return False
        if deploying.desired().desired_id == bad:
            with deploying.home.ledger.write() as tx:
                row = tx.session.get_one(CheckpointRow, chosen)
                operator_actions.deploy(tx, row, "a demo", force=True)
        return True

    deploying.model(bad).drifts = drifts
    deploying.sweep()
    assert deploying.verdicts()[bad] == "rolled back"
    assert deploying.server.live() == deploying.desired().desired_id == chosen
    assert deploying.blocked() == [bad]
    assert deploying.deployments() == [("base", base), ("deploy", bad), ("deploy", chosen)]


def test_a_champion_that_cannot_answer_is_rolled_back_without_client_traffic(
    start_deploying: Callable[..., Any],
) -> None:
    deploying = start_deploying(request_timeout_s=1.0)
    deploying.sweep()
    bad = deploying.add(easy)
    deploying.model(bad).stalls = lambda: deploying.server.live() == bad
    deploying.sweep()
    assert deploying.verdicts() == {bad: "rolled back"}
    assert deploying.server.live() == deploying.home.base_id()
    with deploying.home.ledger.read() as session:
        reason = session.query(VerdictRow).where(VerdictRow.system == "deployment").one().reason
    assert "does not answer clients: no answer within 1 s" in reason


def test_a_challenger_that_cannot_answer_is_refused_before_the_switch(start_deploying: Callable[..., Any]) -> None:
    deploying = start_deploying(request_timeout_s=1.0)
    deploying.sweep()
    bad = deploying.add(easy)
    deploying.model(bad).stalls = lambda: True
    deploying.sweep()
    assert deploying.verdicts() == {bad: "refused"}
    assert deploying.server.live() == deploying.home.base_id()


def test_blocked_weights_stay_blocked_under_another_name_until_an_operator_unblocks_them(deploying: Any) -> None:
    bad = deploying.add(easy)
    deploying.model(bad).drifts = lambda: deploying.server.live() == bad
    deploying.sweep()
    again = deploying.add(easy, judge=False)
    with deploying.home.ledger.write() as tx:
        tx.session.get_one(CheckpointRow, again).weights = tx.session.get_one(CheckpointRow, bad).weights
    deploying.home.add_record(again, "eval", easy)
    deploying.sweep()
    assert deploying.verdicts()[again] == "blocked"


def test_checkpoints_left_loaded_by_a_crash_are_unloaded_for_the_next_challenger(deploying: Any) -> None:
    first = deploying.add(easy)
    deploying.sweep()
    left_over = deploying.add(nothing, judge=False)
    with deploying.server.client() as client:
        client.load(left_over, "anywhere", deploying.checkpoint(left_over).weights)
    assert len(deploying.server.loaded()) == deploying.home.settings.serving.max_loaded
    best = deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {first: "deployed", best: "deployed"}
    assert deploying.server.live() == best


def test_room_for_two_loaded_checkpoints_is_enough(start_deploying: Callable[..., Any]) -> None:
    deploying = start_deploying(max_loaded=2)
    first = deploying.add(easy)
    deploying.sweep()
    second = deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {first: "deployed", second: "deployed"}
