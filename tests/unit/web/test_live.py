"""The page Live: what is served and why, and the operator's actions with their effect on the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.ledger import Ledger, drills
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import BlockRow, CheckpointRow, DeploymentRow, DrillRow, WorkerRow
from sqlalchemy import delete, select, update

from tests.support.viewer import Viewer


@pytest.fixture
def viewer(home: Path, ledger: Ledger) -> Viewer:
    return Viewer(home, ledger)


def champion(ledger: Ledger) -> int:
    with ledger.read() as session:
        return session.get_one(CheckpointRow, serving(session).desired_id).ordinal


def last_change(ledger: Ledger) -> DeploymentRow:
    with ledger.read() as session:
        return session.scalars(select(DeploymentRow).order_by(DeploymentRow.id.desc())).first() or pytest.fail("none")


def test_it_says_what_is_live_and_why(viewer: Viewer, ledger: Ledger) -> None:
    text = viewer.get("/live")
    assert f'href="/checkpoints/{champion(ledger)}"' in text
    assert "What was live, and what was done" in text


def test_it_shows_the_last_drill_with_its_steps_and_the_next_one(viewer: Viewer, ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(delete(DrillRow))
    assert "none yet: <code>ratchet drill rollback</code>" in viewer.get("/live")
    with ledger.write() as tx:
        steps = {"plant": 0.31, "load": 5.24}
        done = {"started_at": tx.now, "finished_at": tx.now, "outcome": "failed", "detail": "no room", "steps": steps}
        tx.session.add(DrillRow(requested_at=tx.now, requested_by="operator", reason="", **done))
        row, _ = drills.request(tx, "operator", "")
        drills.note_waiting(tx, row.id, "a record")
    text = viewer.get("/live")
    assert "(plant 0.3 s, load 5.2 s): no room" in text
    assert "one is asked for, which waits for a record" in text


@pytest.mark.parametrize("path", ["/", "/live"])
def test_what_nobody_serves_is_not_called_live(path: str, viewer: Viewer, ledger: Ledger) -> None:
    served, idle = '<span class="badge live">live</span>', '<span class="badge not-running">not running</span>'
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="running", seen_at=tx.now))
    assert (served in viewer.get(path), idle in viewer.get(path)) == (True, False)
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="stopped"))
    assert (served in viewer.get(path), idle in viewer.get(path)) == (False, True)


def test_an_empty_ledger_says_what_to_expect(home: Path, empty_ledger: Ledger) -> None:
    assert "Nothing is live yet" in Viewer(home, empty_ledger).get("/live")


def test_rolling_back_blocks_the_weights_and_keeps_the_reason(viewer: Viewer, ledger: Ledger) -> None:
    bad = champion(ledger)
    told = viewer.post("/live/rollback", {"reason": "it invents numbers", "freeze": "yes"}).headers["hx-trigger"]
    assert "will be live again" in told
    assert champion(ledger) < bad
    with ledger.read() as session:
        assert session.scalars(select(BlockRow.reason)).all()[-1] == "it invents numbers"
        assert serving(session).frozen_reason == "it invents numbers"
    text = viewer.get("/live")
    assert "it invents numbers" in text
    viewer.post("/live/unfreeze", {"reason": "looked at it"})
    viewer.post("/live/unblock", {"checkpoint": str(bad), "reason": "it was the prompt"})
    assert (last_change(ledger).action, last_change(ledger).reason) == ("unblock", "it was the prompt")
    viewer.post("/live/deploy", {"checkpoint": str(bad), "reason": "back again", "force": "yes"})
    assert champion(ledger) == bad


def test_a_rollback_that_was_decided_about_another_champion_is_refused(viewer: Viewer, ledger: Ledger) -> None:
    """Two viewers may act at once, and the gate may deploy while a viewer thinks."""
    now, before = champion(ledger), last_change(ledger).id
    assert f'name="champion" value="{now}"' in viewer.get("/live")
    assert f'name="champion" value="{now}"' in viewer.get(f"/checkpoints/{now}")
    refused = viewer.post("/live/rollback", {"reason": "it is worse", "champion": "0"}, status=409).json()["error"]
    assert refused.startswith(f"#{now} has become the champion meanwhile")
    assert (champion(ledger), last_change(ledger).id) == (now, before)
    viewer.post("/live/rollback", {"reason": "it is worse", "champion": str(now)})
    assert champion(ledger) < now


def test_a_reason_is_required(viewer: Viewer, ledger: Ledger) -> None:
    before = last_change(ledger).id
    for path in ("rollback", "freeze", "deploy", "unblock"):
        refused = viewer.post(f"/live/{path}", {"reason": "  ", "checkpoint": "0"}, status=409)
        assert "give a reason" in refused.json()["error"]
    assert last_change(ledger).id == before


def test_an_action_that_makes_no_sense_says_why(viewer: Viewer) -> None:
    assert "is not frozen" in viewer.post("/live/unfreeze", {"reason": "x"}, status=409).json()["error"]
    assert "no checkpoint '99'" in viewer.post("/live/deploy", {"checkpoint": "99", "reason": "x"}, 409).json()["error"]
    assert "choose a checkpoint" in viewer.post("/live/unblock", {"reason": "x"}, 409).json()["error"]


def test_a_page_that_is_read_only_has_no_buttons_and_takes_no_actions(home: Path, ledger: Ledger) -> None:
    reader, before = Viewer(home, ledger, read_only=True), last_change(ledger).id
    assert "data-opens" not in reader.get("/live")
    assert "read-only" in reader.post("/live/freeze", {"reason": "x"}, status=409).text
    assert last_change(ledger).id == before
