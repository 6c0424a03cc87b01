"""`ratchet drill rollback`: the request in the ledger, what is said meanwhile, and the exit code."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ratchet.ledger import Ledger, drills
from ratchet.ledger.deployments import champion
from ratchet.ledger.tables import DeadLetterRow, DrillRow, WorkerRow
from sqlalchemy import func, select, update

from tests.support.workers import wait_until

from .running import ratchet

REQUESTED = 2
"""The story in the ledger has a drill already."""


@contextmanager
def carried_out(ledger: Ledger, outcome: drills.Outcome) -> Iterator[None]:
    """A deployer that begins the requested drill, and ends it so."""

    def is_requested() -> bool:
        with ledger.read() as session:
            return drills.pending(session) is not None

    def work() -> None:
        wait_until(is_requested)
        with ledger.write() as tx:
            live = champion(tx.session)
            drills.begin(tx, REQUESTED, live.id, live.weights)
            drills.note_step(tx, REQUESTED, "plant", 0.31)
        with ledger.write() as tx:
            drills.finish(tx, REQUESTED, outcome, "why it ended so", live.id, live.weights)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(("outcome", "code"), [("caught", 0), ("not caught", 1), ("failed", 1)])
def test_the_exit_code_says_whether_it_was_caught(ledger: Ledger, outcome: drills.Outcome, code: int) -> None:
    with carried_out(ledger, outcome):
        shown = ratchet("drill", "rollback", code=code).stdout
    assert "plant: 0.3 s" in shown
    assert f"{outcome}: why it ended so" in shown
    with ledger.read() as session:
        assert f"live before: {champion(session).id}" in shown


def test_without_waiting_it_asks_once_and_keeps_the_reason(ledger: Ledger) -> None:
    assert "drill 2 is requested" in ratchet("drill", "rollback", "--no-wait", "--reason", "new server").stdout
    assert "drill 2 was requested before" in ratchet("drill", "rollback", "--no-wait").stdout
    told = json.loads(ratchet("drill", "rollback", "--no-wait", "--json").stdout)
    assert (told["id"], told["reason"], told["requested_by"]) == (REQUESTED, "new server", "operator")
    assert (told["outcome"], told["steps"]) == (None, {})
    with ledger.read() as session:
        assert session.scalar(select(func.count()).select_from(DrillRow)) == REQUESTED


def test_one_that_is_given_up_ends_the_waiting_and_allows_another(ledger: Ledger) -> None:
    ids = {"system": "deployment", "subject_kind": drills.KIND, "subject_id": str(REQUESTED)}
    letter = {"error": "no", "traceback": "", "failures": 3, "kills": 0, "resolved_at": None, "resolution": None}

    def give_up() -> None:
        with ledger.write() as tx:
            drills.note_waiting(tx, REQUESTED, "a record of the champion")
            tx.session.add(DeadLetterRow(**ids, **letter, created_at=tx.now))

    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(seen_at=0.0))
        drills.request(tx, "operator", "")
    timer = threading.Timer(1.0, give_up)
    timer.start()
    result = ratchet("drill", "rollback", code=2)
    timer.join()
    assert "no deployment worker is running" in result.stdout
    assert "it waits for a record of the champion." in result.stdout
    assert "drill 2 was given up after errors" in result.stderr
    assert "drill 3 is requested" in ratchet("drill", "rollback", "--no-wait").stdout
