"""What an operator decides, and what the ledger keeps of it."""

from __future__ import annotations

import json

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import BatchRow, DeadLetterRow, DeploymentRow, LineageRow, OutboxRow, ServingRow
from sqlalchemy import select

from tests.support.rows import worker_row
from tests.support.story import checkpoint_id

from .running import ratchet


def test_dead_letters_are_listed_shown_and_retried(ledger: Ledger) -> None:
    assert "ran out of memory" in ratchet("dead", "list").stdout
    assert "`ratchet dead retry 1`" in ratchet("dead", "show", "1").stdout
    ratchet("dead", "retry", "1")
    assert "no dead letters" in ratchet("dead", "list").stdout
    assert "no open dead letter" in ratchet("dead", "retry", "1", code=2).stderr
    with ledger.read() as session:
        assert session.get_one(DeadLetterRow, 1).resolution is not None


@pytest.mark.parametrize("command", [("dead", "show"), ("dead", "retry"), ("events", "-n"), ("show", "mined", "-n")])
def test_a_number_that_no_ledger_can_have_is_refused(ledger: Ledger, command: tuple[str, ...]) -> None:
    assert "less than or equal to 2147483647" in ratchet(*command, "99999999999999999999", code=2).stderr


@pytest.mark.parametrize("command", ["serve", "discover"])
@pytest.mark.parametrize("port", ["-1", "99999"])
def test_a_port_that_no_machine_has_is_refused(command: str, port: str) -> None:
    assert "Invalid value for '--port'" in ratchet(command, "--port", port, code=2).stderr


def test_a_removed_judge_is_forgotten(ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.add(worker_row("taste", tx.now - 600.0, declaration={"is_judge": True}))
    assert "taste is forgotten" in ratchet("systems", "--forget", "taste").stdout
    assert "no worker has registered" in ratchet("systems", "--forget", "taste", code=2).stderr


def test_deploying_by_hand_needs_proof_or_force(ledger: Ledger) -> None:
    assert "not proved" in ratchet("deploy", "checkpoint", "2", "--reason", "because", code=2).stderr
    ratchet("deploy", "checkpoint", "2", "--reason", "because", "--force")
    with ledger.read() as session:
        serving = session.get_one(ServingRow, "main")
        assert (serving.desired_id, serving.previous_id, serving.proved) == (checkpoint_id(2), checkpoint_id(3), False)
        last = session.scalars(select(DeploymentRow).order_by(DeploymentRow.id.desc())).first()
        assert last is not None
        assert (last.actor, last.reason) == ("operator", "because")


def test_a_former_champion_needs_no_force(ledger: Ledger) -> None:
    ratchet("deploy", "checkpoint", "1", "--reason", "it was nicer")
    with ledger.read() as session:
        assert session.get_one(ServingRow, "main").proved


def test_rollback_blocks_the_weights_until_unblock(ledger: Ledger) -> None:
    ratchet("deploy", "rollback", "--reason", "customers complain")
    with ledger.read() as session:
        assert session.get_one(ServingRow, "main").desired_id == checkpoint_id(1)
        assert session.scalar(select(OutboxRow).where(OutboxRow.name == "deployment.rolled_back")) is not None
    assert "blocked" in ratchet("deploy", "checkpoint", "3", "--reason", "again", code=2).stderr
    assert "no earlier champion" in ratchet("deploy", "rollback", code=2).stderr
    ratchet("deploy", "unblock", "3")
    ratchet("deploy", "checkpoint", "3", "--reason", "again")


def test_freeze_and_unfreeze(ledger: Ledger) -> None:
    ratchet("deploy", "freeze", "--reason", "a demo")
    assert "frozen: a demo" in ratchet("status").stdout
    ratchet("deploy", "unfreeze")
    assert "not frozen" in ratchet("deploy", "unfreeze", code=2).stderr


def test_pause_and_resume(ledger: Ledger) -> None:
    ratchet("train", "pause")
    with ledger.read() as session:
        assert session.get_one(LineageRow, "main").paused
    assert "paused already" in ratchet("train", "pause", code=2).stderr
    ratchet("train", "resume")
    with ledger.read() as session:
        assert not session.get_one(LineageRow, "main").paused


def test_history_shows_what_was_live_and_every_freeze_and_block(ledger: Ledger) -> None:
    ratchet("deploy", "freeze", "--reason", "a demo")
    ratchet("deploy", "unfreeze", "--reason", "it is over")
    actions = json.loads(ratchet("show", "history", "--json").stdout)["actions"][::-1]
    assert [(act["action"], act["ordinal"]) for act in actions] == [
        ("deploy", 1),
        ("deploy", 3),
        ("freeze", 3),
        ("unfreeze", 3),
    ]
    assert actions[0]["until_at"] == actions[1]["at"]
    shown = ratchet("show", "history").stdout
    assert "a demo" in shown
    assert "so far" in shown
    assert "unfreeze" in ratchet("show", "history", "--limit", "1").stdout
    assert "a demo" not in ratchet("show", "history", "--limit", "1").stdout


def test_skip_leaves_the_batch_in_training(ledger: Ledger) -> None:
    assert "examples are in a checkpoint" in ratchet("train", "skip").stdout
    with ledger.read() as session:
        assert session.get_one(BatchRow, "06" + "b" * 30).state == "skipped"
    assert "no batch is in training" in ratchet("train", "skip", code=2).stderr
