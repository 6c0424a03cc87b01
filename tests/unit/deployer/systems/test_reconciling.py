"""A server that is away, restarted or of another mind is brought to what the ledger desires."""

from __future__ import annotations

import threading
from typing import Any

from ratchet.cli.doctor import examine
from ratchet.ledger import operator_actions
from ratchet.ledger.tables import ClaimRow, DeadLetterRow
from ratchet.systems import Subject, claims

from .knowing import easy


def test_a_restarted_server_without_state_gets_the_champion_again(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    deploying.server.stop()
    deploying.server.forget()
    deploying.server.start()
    assert deploying.server.live() is None
    deploying.sweep()
    assert deploying.server.live() == better
    assert deploying.deployments()[-1] == ("deploy", better)


def test_a_restarted_server_with_its_state_is_left_alone(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.sweep()
    deploying.server.stop()
    deploying.server.start()
    assert deploying.server.live() == better
    assert deploying.sweep() == []


def test_a_manually_deployed_champion_is_loaded_into_the_server(deploying: Any) -> None:
    deploying.sweep()
    first = deploying.add(easy)
    deploying.sweep()
    with deploying.home.ledger.write() as tx:
        operator_actions.rollback(tx, "I do not like it")
    heard = deploying.sweep()
    assert heard == ["checkpoint.deployed"]
    assert deploying.server.live() == deploying.home.base_id()
    assert deploying.blocked() == [first]


def test_a_refusing_server_is_asked_again_without_limit(deploying: Any) -> None:
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
    assert deploying.server.manager.health().loaded[better] == weights


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


def test_a_lower_token_does_not_switch_the_server(deploying: Any) -> None:
    """A switch by somebody the ledger knows nothing of is not undone with an older right."""
    base = deploying.home.base_id()
    deploying.sweep()
    with deploying.server.client() as client:
        client.switch(base, 10_000)
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.server.live() == base
    assert deploying.blocked() == []
    assert better not in deploying.verdicts()


def test_a_restored_ledger_controls_the_server_again_after_reset_fencing(deploying: Any) -> None:
    deploying.sweep()
    with deploying.server.client() as client:
        client.switch(deploying.home.base_id(), 10_000)
        above = client.health().highest_fencing_token
    better = deploying.add(easy)
    deploying.sweep()
    assert deploying.verdicts() == {}
    assert says_doctor(deploying).startswith("bad")
    with deploying.home.ledger.write() as tx:
        operator_actions.reset_fencing(tx, above, "restored")
    assert says_doctor(deploying).startswith("ok")
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.server.live() == better


def test_an_unreachable_server_defers_decisions_without_counting_failures(deploying: Any) -> None:
    better = deploying.add(easy)
    deploying.server.stop()
    bus = deploying.bus()
    stopper = threading.Timer(0.3, bus.controllers["deployment"].stop.set)
    stopper.start()
    bus.sweep()
    stopper.join()
    assert deploying.verdicts() == {}
    with deploying.home.ledger.read() as session:
        assert session.query(DeadLetterRow).count() == 0
        assert session.query(ClaimRow).count() == 0
    deploying.server.start()
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}


def says_doctor(deploying: Any) -> str:
    """What `ratchet doctor` finds of the server."""
    return next(f"{found.state} {found.text}" for found in examine(deploying.home.settings) if found.check == "server")


def test_a_successful_reconcile_is_recorded_without_a_verdict(deploying: Any) -> None:
    deploying.sweep()
    first = deploying.desired()
    deploying.sweep()
    again = deploying.desired()
    assert (again.actual_id, again.fallback_reason) == (first.actual_id, None)
    assert again.actual_at > first.actual_at
    assert deploying.verdicts() == {}
