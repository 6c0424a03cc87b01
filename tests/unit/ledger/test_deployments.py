"""Desired state: one writer for the gate, the watch and the operator, and a history of every change."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.ledger import operator_actions
from ratchet.ledger.deployments import (
    champion,
    history,
    note_fallback,
    note_live,
    promote,
    roll_back,
    serving,
    was_proved,
)
from ratchet.ledger.health import damages_since
from ratchet.ledger.ledger import counter_value, next_counter, raise_counter
from ratchet.ledger.tables import BlockRow, CheckpointRow

from tests.support.home import small_home


def test_every_action_is_kept_with_its_reason_and_every_champion_with_its_end(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        base, first = home.base_id(), home.add_checkpoint()
        with home.ledger.write() as tx:
            operator_actions.freeze(tx, "a demo")
            operator_actions.unfreeze(tx, "it is over")
            operator_actions.deploy(tx, tx.session.get_one(CheckpointRow, first), "to see", force=True)
        with home.ledger.write() as tx:
            operator_actions.rollback(tx, "worse to read")
            operator_actions.unblock(tx, tx.session.get_one(CheckpointRow, first), "a mistake")
        with home.ledger.read() as session:
            acts = history(session)
    assert [(act.action, act.actor, act.checkpoint_id, act.reason) for act in acts] == [
        ("base", "setup", base, "the base model is live from the start"),
        ("freeze", "operator", base, "a demo"),
        ("unfreeze", "operator", base, "it is over"),
        ("deploy", "operator", first, "to see"),
        ("rollback", "operator", base, "worse to read"),
        ("unblock", "operator", first, "a mistake"),
    ]
    ends = {act.action: act.until_at for act in acts if act.changes_champion}
    assert ends == {"base": acts[3].at, "deploy": acts[4].at, "rollback": None}


def test_a_restored_ledger_gets_past_the_tokens_that_were_given_out_before(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        with home.ledger.write() as tx:
            operator_actions.reset_fencing(tx, 700, "from the backup of Monday")
            assert next_counter(tx.session, "fencing") > 700
        with home.ledger.write() as tx, pytest.raises(PreconditionFailed, match="above the server's"):
            operator_actions.reset_fencing(tx, 700, "again")
        with home.ledger.write() as tx:
            assert not raise_counter(tx.session, "fencing", 3)
            assert counter_value(tx.session, "no such counter") == 0


def test_only_a_promotion_by_the_gate_proves_a_checkpoint(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        base, forced, promoted = home.base_id(), home.add_checkpoint(), home.add_checkpoint()
        with home.ledger.write() as tx:
            operator_actions.deploy(tx, tx.session.get_one(CheckpointRow, forced), "by hand: a demo", force=True)
            assert promote(tx, promoted, forced, "by hand: better", {}, 7) is None
        with home.ledger.read() as session:
            assert [was_proved(session, id) for id in (base, forced, promoted)] == [True, False, True]
            assert [row.token for row in history(session)[1:]] == [1, 7]


def test_a_rollback_by_the_watch_leaves_a_champion_that_an_operator_chose_meanwhile(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        base, watched, chosen = home.base_id(), home.add_checkpoint(), home.add_checkpoint()
        with home.ledger.write() as tx:
            promote(tx, watched, base, "better", {}, 1)
            operator_actions.deploy(tx, tx.session.get_one(CheckpointRow, chosen), "to see", force=True)
            assert roll_back(tx, watched, base, "watch", "slow", 2) == chosen
            assert tx.emitted == []
        with home.ledger.read() as session:
            assert champion(session).id == chosen
            assert [row.checkpoint_id for row in session.query(BlockRow)] == [watched]
            assert [entry.action for entry in history(session)] == ["base", "deploy", "deploy"]


def test_a_fallback_is_noted_until_the_champion_is_live_and_not_for_a_former_champion(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        base, first = home.base_id(), home.add_checkpoint()
        with home.ledger.write() as tx:
            promote(tx, first, base, "better", {}, 1)
            note_fallback(tx, base, None, "a" * 64, "rotten")
            assert serving(tx.session).fallback_reason is None
            note_fallback(tx, first, base, "a" * 64, "rotten")
        with home.ledger.read() as session:
            assert str(serving(session).fallback_reason).startswith(f"{base} is served in the place of")
            assert [row.artifact for row in damages_since(session, 0.0)] == ["a" * 64]
        with home.ledger.write() as tx:
            note_live(tx, first)
        with home.ledger.read() as session:
            assert (serving(session).fallback_reason, serving(session).actual_id) == (None, first)
            assert damages_since(session, 0.0) == []
