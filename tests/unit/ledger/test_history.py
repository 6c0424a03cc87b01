"""What was live from when to when, and the acts between."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed
from ratchet.ledger import hand
from ratchet.ledger.history import history
from ratchet.ledger.ledger import counter_value, next_counter, raise_counter
from ratchet.ledger.tables import CheckpointRow

from tests.support.home import small_home


def test_every_act_is_kept_with_its_reason_and_every_champion_with_its_end(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        base, first = home.base_id(), home.add_checkpoint()
        with home.ledger.write() as tx:
            hand.freeze(tx, "a demo")
            hand.unfreeze(tx, "it is over")
            hand.deploy(tx, tx.session.get_one(CheckpointRow, first), "to see", force=True)
        with home.ledger.write() as tx:
            hand.rollback(tx, "worse to read")
            hand.unbar(tx, tx.session.get_one(CheckpointRow, first), "a mistake")
        with home.ledger.read() as session:
            acts = history(session)
    told = [(act.action, act.checkpoint_id, act.reason) for act in acts]
    assert told == [
        ("base", base, "the base model is live from the start"),
        ("freeze", base, "by hand: a demo"),
        ("unfreeze", base, "by hand: it is over"),
        ("deploy", first, "by hand: to see"),
        ("rollback", base, "by hand: worse to read"),
        ("unbar", first, "by hand: a mistake"),
    ]
    ends = {act.action: act.until_at for act in acts if act.changes_champion}
    assert ends == {"base": acts[3].at, "deploy": acts[4].at, "rollback": None}


def test_a_restored_ledger_gets_past_the_tokens_that_were_given_out_before(tmp_path: Path) -> None:
    with small_home(tmp_path / "run") as home:
        with home.ledger.write() as tx:
            hand.fence(tx, 700, "from the backup of Monday")
            assert next_counter(tx.session, "fencing") > 700
        with home.ledger.write() as tx, pytest.raises(PreconditionFailed, match="above the server's"):
            hand.fence(tx, 700, "again")
        with home.ledger.write() as tx:
            assert not raise_counter(tx.session, "fencing", 3)
            assert counter_value(tx.session, "no such counter") == 0
