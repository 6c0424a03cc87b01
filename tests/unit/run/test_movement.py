"""Whether anything still moves."""

from __future__ import annotations

import time

from ratchet.ledger import Ledger
from ratchet.ledger.tables import ClaimRow, LineageRow
from ratchet.run.movement import Movement

from tests.support.story import batch_id


def still_s(movement: Movement, ledger: Ledger) -> float:
    with ledger.read() as session:
        return movement.look(session)


def test_a_ledger_at_rest_stands_still_until_a_claim_makes_progress(ledger: Ledger) -> None:
    movement = Movement()
    still_s(movement, ledger)
    movement.moved_at = time.monotonic() - 500
    assert still_s(movement, ledger) >= 500
    with ledger.write() as tx:
        tx.session.get_one(ClaimRow, ("training", "batch", batch_id(6))).progress += 1
    assert still_s(movement, ledger) < 500


def test_a_pause_by_hand_is_not_a_standstill(ledger: Ledger) -> None:
    movement = Movement()
    still_s(movement, ledger)
    movement.moved_at = time.monotonic() - 500
    with ledger.write() as tx:
        tx.session.get_one(LineageRow, "main").paused = True
    assert still_s(movement, ledger) < 500
