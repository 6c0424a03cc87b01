from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from deployer.desired import promote
from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from ratchet.cli.doctor import examine
from ratchet.data.example import Example
from ratchet.errors import Stopping
from ratchet.evaluation.confidence import Certainty
from ratchet.ledger import hand
from ratchet.ledger.tables import Calibration, Challenge, Checkpoint, DeadLetter, Regression, SuiteRow, Verdict
from ratchet.ledger.tables import Claim as ClaimRow
from ratchet.settings.training import MonitoringSettings
from ratchet.stats.spending import alpha_spent
from ratchet.systems import Subject, claims, poison


def easy(item: Example) -> bool:
    return item.level == 1


def everything(_item: Example) -> bool:
    return True


def nothing(_item: Example) -> bool:
    return False


def by_luck(item: Example) -> bool:
    """Right on the suite that screens, wrong on the one that decides."""
    return item.metadata["source"] == "eval" and item.level == 1


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


def test_what_clients_ask_for_is_answered_by_the_deployed_checkpoint(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    deploying.sweep()
    listed = httpx.get(f"{deploying.home.settings.serving.base_url}/v1/models").json()["data"]
    behind = {entry["id"]: entry["ratchet"] for entry in listed}
    assert behind["ratchet"] == {"checkpoint": better, "weights": deploying.checkpoint(better).weights}


def test_the_calibration_ships_with_the_deployment_and_with_the_way_back(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    deploying.sweep()
    live = deploying.server.fleet.health().live
    assert (live.checkpoint_id, live.certainty) == (better, shipped(deploying, better))
    with deploying.home.ledger.write() as tx:
        hand.rollback(tx, "to see")
    deploying.sweep()
    live = deploying.server.fleet.health().live
    base = deploying.home.base_id()
    assert (live.checkpoint_id, live.certainty) == (base, shipped(deploying, base))


def test_a_calibration_that_comes_later_is_brought_to_the_server(deploying: Any) -> None:
    deploying.home.bus(DEPLOYMENT).sweep()
    assert deploying.server.fleet.health().live.certainty is None
    assert deploying.sweep() == ["checkpoint.cleared", "ranking.changed", "checkpoint.calibrated"]
    assert deploying.server.fleet.health().live.certainty == shipped(deploying, deploying.home.base_id())


def shipped(deploying: Any, checkpoint: str) -> Certainty:
    with deploying.home.ledger.read() as session:
        return Certainty.model_validate(session.get_one(Calibration, checkpoint).numbers["shipped"])


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


def test_each_deployment_carries_the_numbers_that_proved_it(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    with deploying.home.ledger.read() as session:
        verdict = session.query(Verdict).where(Verdict.subject_id == better, Verdict.system == "deployment").one()
    evidence = verdict.numbers["evidence"]
    assert verdict.reason.startswith("Proved better: 60 gains and 0 losses on 120 items")
    assert evidence["alpha_k"] == pytest.approx(alpha_spent(0.05, 1))
    assert evidence["target"]["n"] == 120


def test_a_champion_is_replaced_by_a_better_one_and_stays_as_the_way_back(deploying: Any) -> None:
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


def test_a_checkpoint_that_is_not_promising_spends_nothing(deploying: Any) -> None:
    same = deploying.add(nothing)
    deploying.sweep()
    assert deploying.verdicts() == {same: "screened out"}
    assert deploying.challenges() == []
    assert deploying.confirm_uses() == 0
    assert deploying.server.live() == deploying.home.base_id()


def test_a_refused_challenge_counts_and_the_next_one_has_less_to_spend(deploying: Any) -> None:
    lucky = deploying.add(by_luck)
    heard = deploying.sweep()
    assert "deployment.refused" in heard
    better = deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {lucky: "refused", better: "deployed"}
    assert deploying.challenges() == [(lucky, 1, "refuse"), (better, 2, "promote")]
    assert deploying.confirm_uses() == 2
    with deploying.home.ledger.read() as session:
        numbers = session.query(Challenge).where(Challenge.k == 2).one().numbers
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


def test_a_roll_out_that_was_cut_off_before_the_switch_is_finished(deploying: Any) -> None:
    deploying.sweep()
    better = deploying.add(easy)
    with deploying.home.ledger.write() as tx:
        promote(tx, better, "it was proved", {"evidence": "e"}, 5)
    assert deploying.server.live() == deploying.home.base_id()
    deploying.sweep()
    assert deploying.server.live() == better
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.deployments()[1:] == [("deploy", better)]
    with deploying.home.ledger.read() as session:
        verdict = session.query(Verdict).where(Verdict.system == "deployment").one()
    assert (verdict.reason, verdict.numbers) == ("it was proved", {"evidence": "e"})


def test_a_watch_that_was_cut_off_is_held_again_and_deploys_once(start_deploying: Callable[..., Any]) -> None:
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


def test_how_long_a_deployment_is_watched_is_set(start_deploying: Callable[..., Any]) -> None:
    """In no time there is one look: the canary before the switch, and one after it."""
    deploying = start_deploying(watch_s=0.0)
    deploying.sweep()
    better = deploying.add(easy)
    looks: list[bool] = []
    deploying.model(better).asked = lambda: looks.append(deploying.server.live() == better)
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert (looks.count(False), looks.count(True)) == (1, 1)


def test_what_computes_otherwise_than_it_was_judged_is_refused_before_any_client_meets_it(deploying: Any) -> None:
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
        reason = session.query(Verdict).where(Verdict.system == "deployment").one().reason
    assert "The smoke test failed." in reason
    assert "log-probability differs" in reason
    row = deploying.desired()
    assert (row.canary_id, row.canary_passed) == (better, False)
    assert row.canary_difference > 0


def test_a_champion_that_fails_under_watch_is_rolled_back_and_barred(deploying: Any) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    bad = deploying.add(easy)
    deploying.model(bad).drifts = lambda: deploying.server.live() == bad
    heard = deploying.sweep()
    assert "deployment.rolled_back" in heard
    assert deploying.verdicts() == {bad: "rolled back"}
    row = deploying.desired()
    assert (row.desired_id, row.previous_id, row.actual_id) == (base, None, base)
    assert deploying.barred() == [bad]
    assert deploying.server.live() == base
    assert deploying.server.loaded() == {base}
    assert deploying.deployments() == [("base", base), ("deploy", bad), ("rollback", base)]


def test_barred_weights_stay_barred_under_another_name_until_a_human_lifts_it(deploying: Any) -> None:
    bad = deploying.add(easy)
    deploying.model(bad).drifts = lambda: deploying.server.live() == bad
    deploying.sweep()
    again = deploying.add(easy, judge=False)
    with deploying.home.ledger.write() as tx:
        tx.session.get_one(Checkpoint, again).weights = tx.session.get_one(Checkpoint, bad).weights
    deploying.home.add_record(again, "eval", easy)
    deploying.sweep()
    assert deploying.verdicts()[again] == "barred"


def test_a_restarted_server_that_lost_its_state_is_brought_back(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    deploying.server.stop()
    deploying.server.forget()
    deploying.server.start()
    assert deploying.server.live() is None
    deploying.sweep()
    assert deploying.server.live() == better
    assert deploying.deployments()[-1] == ("deploy", better)


def test_a_restarted_server_that_kept_its_state_needs_no_help(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    deploying.server.stop()
    deploying.server.start()
    assert deploying.server.live() == better
    assert deploying.sweep() == []


def test_a_champion_by_hand_is_brought_to_the_server(deploying: Any) -> None:
    deploying.sweep()
    first = deploying.add(easy)
    deploying.sweep()
    with deploying.home.ledger.write() as tx:
        hand.rollback(tx, "I do not like it")
    heard = deploying.sweep()
    assert heard == ["checkpoint.deployed"]
    assert deploying.server.live() == deploying.home.base_id()
    assert deploying.barred() == [first]


def test_a_server_that_refuses_what_is_desired_is_asked_again_and_nothing_is_given_up(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    weights = deploying.checkpoint(better).weights
    deploying.server.stop()
    deploying.server.forget()
    deploying.server.start()
    with deploying.server.client() as client:
        client.load(better, "nowhere", deploying.checkpoint(deploying.home.base_id()).weights)
    for _ in range(5):
        deploying.sweep()
    assert deploying.server.live() is None
    assert deploying.desired().actual_id is None
    assert deploying.home.dead() == []
    with deploying.server.client() as client:
        client.unload(better)
    deploying.sweep()
    assert deploying.server.live() == better
    assert deploying.server.fleet.health().loaded[better] == weights


def test_frozen_nothing_is_challenged_or_spent_and_unfrozen_it_goes_on(deploying: Any) -> None:
    base = deploying.home.base_id()
    with deploying.home.ledger.write() as tx:
        hand.freeze(tx, "holidays")
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.verdicts() == {}
    assert deploying.challenges() == []
    assert deploying.server.live() == base
    with deploying.home.ledger.write() as tx:
        hand.unfreeze(tx, "back")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}


def test_older_ones_are_superseded_by_the_candidate_and_by_a_newer_champion(deploying: Any) -> None:
    oldest, older, best = deploying.add(nothing), deploying.add(easy), deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {best: "deployed", older: "superseded", oldest: "superseded"}
    assert deploying.challenges() == [(best, 1, "promote")]


def test_a_regressed_checkpoint_is_refused_unheard(deploying: Any) -> None:
    first = deploying.add(everything)
    deploying.sweep()
    worse = deploying.add(easy)
    deploying.sweep()
    with deploying.home.ledger.read() as session:
        assert session.get_one(Regression, worse).severity == "critical"
    assert deploying.verdicts() == {first: "deployed", worse: "refused"}
    assert deploying.confirm_uses() == 1


def test_one_whose_files_are_gone_blocks_nobody(deploying: Any) -> None:
    better, gone = deploying.add(easy), deploying.add(easy)
    with deploying.home.ledger.write() as tx:
        tx.session.get_one(Checkpoint, gone).state = "deleted"
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed", gone: "superseded"}


def test_what_a_crash_left_loaded_does_not_crowd_out_the_next_challenger(deploying: Any) -> None:
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


def test_two_places_in_memory_are_enough(start_deploying: Callable[..., Any]) -> None:
    deploying = start_deploying(max_loaded=2)
    first = deploying.add(easy)
    deploying.sweep()
    second = deploying.add(everything)
    deploying.sweep()
    assert deploying.verdicts() == {first: "deployed", second: "deployed"}


def test_a_deployer_that_was_frozen_and_taken_over_deploys_nothing_a_second_time(deploying: Any) -> None:
    home = deploying.home
    deploying.sweep()
    better = deploying.add(easy)
    overtaken: list[str] = []

    def take_over() -> None:
        """While the first deployer is at its canary, its claim goes to another, which finishes."""
        if overtaken:
            return
        overtaken.append(better)
        with home.ledger.write() as tx:
            tx.session.get_one(ClaimRow, ("deployment", "checkpoint", better)).expires_at = 0.0
            other = claims.take(tx, "deployment", Subject("checkpoint", better), "deployment@other+0", 60.0)
            assert other is not None
            claims.release(tx, other)
        deploying.sweep()

    deploying.model(better).asked = take_over
    deploying.sweep()
    assert overtaken == [better]
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.deployments()[1:] == [("deploy", better)]
    assert deploying.challenges() == [(better, 1, "promote")]
    assert home.dead() == []


def test_a_lower_token_does_not_move_the_server(deploying: Any) -> None:
    """A switch by somebody the ledger knows nothing of is not undone with an older right."""
    base = deploying.home.base_id()
    deploying.sweep()
    with deploying.server.client() as client:
        client.switch(base, 10_000)
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.server.live() == base
    assert deploying.barred() == []
    assert better not in deploying.verdicts()


def test_a_restored_ledger_has_its_say_again_once_a_human_has_fenced_it(deploying: Any) -> None:
    deploying.sweep()
    with deploying.server.client() as client:
        client.switch(deploying.home.base_id(), 10_000)
        above = client.health().highest_token
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.verdicts() == {}
    assert says_doctor(deploying).startswith("bad")
    with deploying.home.ledger.write() as tx:
        hand.fence(tx, above, "restored")
    assert says_doctor(deploying).startswith("ok")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.server.live() == better


def test_a_record_that_testing_gave_up_keeps_nobody_else_waiting(deploying: Any) -> None:
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
        poison.retry(tx, letter, "a human")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.challenges() == [(better, 1, "promote")]


def says_doctor(deploying: Any) -> str:
    """What `ratchet doctor` finds of the server."""
    return next(f"{found.state} {found.text}" for found in examine(deploying.home.settings) if found.check == "server")


def give_up(deploying: Any, checkpoint: str) -> int:
    """Dead-letter the request for the checkpoint's confirm record."""
    with deploying.home.ledger.write() as tx:
        suite = tx.session.query(SuiteRow).filter_by(pool="confirm").one().id
        letter = DeadLetter(
            system="testing",
            subject_kind="request",
            subject_id=f"{checkpoint}/{suite}/1",
            error="out of memory",
            traceback="",
            failures=3,
            kills=0,
            created_at=tx.now,
            resolved_at=None,
            resolution=None,
        )
        tx.session.add(letter)
        tx.session.flush()
        return letter.id


def test_with_the_server_away_nothing_is_decided_and_nothing_counts_against_anybody(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.server.stop()
    bus = deploying.bus()
    stopper = threading.Timer(0.3, bus.controllers["deployment"].stop.set)
    stopper.start()
    bus.sweep()
    stopper.join()
    assert deploying.verdicts() == {}
    with deploying.home.ledger.read() as session:
        assert session.query(DeadLetter).count() == 0
        assert session.query(ClaimRow).count() == 0
    deploying.server.start()
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}


def test_on_how_many_items_a_checkpoint_is_checked_before_the_switch_is_set(
    start_deploying: Callable[..., Any],
) -> None:
    deploying = start_deploying(canary_items=5)
    better = deploying.add(lambda _item: True)
    deploying.sweep()
    assert deploying.server.live() == better
    assert len(set(deploying.model(better).heard)) == 5
