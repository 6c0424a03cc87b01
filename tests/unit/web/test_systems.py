"""The page Systems: what it says of each system, its logs, and the actions on dead letters and training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.events.catalogue import CheckpointSaved
from ratchet.ledger import Ledger
from ratchet.ledger.lineage import lineage
from ratchet.ledger.tables import BatchRow, DeadLetterRow, VerdictRow, WorkerRow
from ratchet.systems import registry
from ratchet.systems.system import Declaration
from sqlalchemy import select

from tests.support.synthetic_ledger import HOSTILE, build
from tests.support.viewer import Viewer


@pytest.fixture
def viewer(home: Path, ledger: Ledger) -> Viewer:
    return Viewer(home, ledger)


def dead(ledger: Ledger) -> DeadLetterRow:
    with ledger.read() as session:
        return session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.id)).first() or pytest.fail("none")


def log(home: Path, name: str, *lines: str) -> None:
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / name).write_text("".join(f"{line}\n" for line in lines))


def told(at: float, level: str, message: str, **fields: str) -> str:
    return json.dumps({"at": at, "level": level, "message": message, **fields})


def test_every_system_is_listed_with_its_state_and_what_waits(viewer: Viewer, ledger: Ledger) -> None:
    text = viewer.get("/systems")
    for name in registry.systems():
        assert f'href="/systems/{name}"' in text
    assert "1 open" in text
    assert "web.links" in text, "it says how to add links to Flower and Grafana"


def test_a_system_of_another_package_is_listed_by_what_its_worker_has_registered(
    viewer: Viewer, ledger: Ledger
) -> None:
    declared = {"order": 50, "is_judge": True, "purpose": "Tastes checkpoints.", "consumes": [CheckpointSaved.name]}
    times = {"started_at": ledger.now(), "seen_at": ledger.now()}
    place = {"host": "kitchen", "pid": 7, "version": "9", "metrics_url": "http://kitchen:9100/metrics"}
    with ledger.write() as tx:
        tx.session.add(WorkerRow(name="taste@kitchen+0", system="taste", declaration=declared, **times, **place))
    assert "kitchen" in viewer.get("/systems")
    text = viewer.get("/systems/taste")
    assert "Tastes checkpoints." in text
    assert 'href="/journal?name=checkpoint.saved"' in text
    assert 'href="http://kitchen:9100/metrics"' in text
    assert "docker compose logs taste" in text


def test_a_worker_registers_what_its_system_is_for() -> None:
    declared = Declaration.of(registry.get("mining"))
    assert (declared.consumes, declared.emits) == (("checkpoint.evaluated",), ("examples.mined",))
    assert declared.purpose


def test_an_unknown_system_is_named_with_the_known_ones(viewer: Viewer) -> None:
    text = viewer.get("/systems/cooking", status=404)
    assert "there is no system 'cooking'; there are: " in text
    assert "testing" in text


def test_verdicts_are_paged_from_the_newest(viewer: Viewer, ledger: Ledger) -> None:
    with ledger.write() as tx:
        for n in range(40):
            named = {"subject_kind": "refill", "subject_id": str(1000 + n), "system": "generation"}
            row = {"outcome": "submitted", "reason": f"reason {n}.", "numbers": {}, "worker": "w", "took_s": 0.1}
            tx.session.add(VerdictRow(**named, **row, cause=None, created_at=tx.now))
    first = viewer.get("/systems/generation")
    assert "reason 39." in first
    assert "reason 2." not in first
    older = first.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
    second = viewer.get(f"/systems/generation{older}")
    assert "reason 2." in second
    assert "reason 39." not in second
    assert "no number" in viewer.get("/systems/generation?before=x", status=409)


def test_logs_are_filtered_by_level_and_text(viewer: Viewer, home: Path) -> None:
    trace = "Traceback (most recent call last):\nOSError: no space"
    log(home, "testing@box+0.log", told(1.0, "info", "began"), told(3.0, "error", "it failed", traceback=trace))
    log(home, "testing.child.log", "loading weights")
    log(home, "training@box+0.log", told(2.0, "info", "of another system"))
    text = viewer.get("/systems/testing")
    assert text.index("it failed") < text.index("began")
    assert "loading weights" in text
    assert "of another system" not in text
    assert "OSError: no space" in text
    errors = viewer.get("/systems/testing?level=error")
    assert "it failed" in errors
    assert "began" not in errors
    assert "began" not in viewer.get("/systems/testing?text=NO+space")
    assert "No line in the ends of these files matches." in viewer.get("/systems/testing?text=xyzzy")
    assert "there is no level 'loud'" in viewer.get("/systems/testing?level=loud", status=409)


@pytest.mark.parametrize("at", ["1e300", "NaN", "-1e20"])
def test_a_line_of_another_program_is_text(viewer: Viewer, home: Path, at: str) -> None:
    (home / "logs").mkdir(exist_ok=True)
    line = f'{{"at": {at}, "level": "info", "message": "hello"}}'
    (home / "logs" / "testing.child.log").write_text(f"{line}\n")
    assert line in viewer.get("/systems/testing")


def test_a_dead_letter_is_tried_again(viewer: Viewer, ledger: Ledger) -> None:
    letter = dead(ledger)
    text = viewer.get(f"/systems/{letter.system}")
    assert letter.error in text
    assert letter.traceback in text
    answer = viewer.post(f"/systems/dead/{letter.id}/retry")
    assert f"{letter.system} will try" in answer.headers["hx-trigger"]
    assert dead(ledger).resolution == "retried by an operator at the Control Room"
    assert "None is open" in viewer.get("/systems")
    again = viewer.post(f"/systems/dead/{letter.id}/retry", status=409).json()["error"]
    assert again == f"there is no open dead letter {letter.id}; `ratchet dead list` has them."
    for number in ("999", "x", "9" * 30):
        assert "there is no dead letter" in viewer.post(f"/systems/dead/{number}/retry", status=404).json()["error"]


def test_training_is_paused_and_resumed(viewer: Viewer, ledger: Ledger) -> None:
    def is_paused() -> bool:
        with ledger.read() as session:
            return lineage(session).paused

    assert "Pause training" in viewer.get("/systems/training")
    viewer.post("/systems/training/pause")
    assert is_paused()
    assert "paused already" in viewer.post("/systems/training/pause", status=409).json()["error"]
    assert "Resume training" in viewer.get("/systems/training")
    viewer.post("/systems/training/resume")
    assert not is_paused()


def test_the_batch_in_training_is_skipped(viewer: Viewer, ledger: Ledger) -> None:
    with ledger.read() as session:
        running = session.scalars(select(BatchRow.id).where(BatchRow.state == "training")).one()
    assert f'name="batch" value="{running}"' in viewer.get("/systems/training")
    other = viewer.post("/systems/training/skip", {"batch": "of another viewer"}, status=409).json()["error"]
    assert other.startswith(f"batch {running[:6]} is in training now")
    with ledger.read() as session:
        assert session.get_one(BatchRow, running).state == "training"
    assert "is skipped" in viewer.post("/systems/training/skip", {"batch": running}).headers["hx-trigger"]
    with ledger.read() as session:
        assert session.get_one(BatchRow, running).state == "skipped"
    assert "no batch is in training" in viewer.post("/systems/training/skip", status=409).json()["error"]


def test_a_page_that_is_read_only_acts_on_nothing(home: Path, ledger: Ledger) -> None:
    reader, letter = Viewer(home, ledger, read_only=True), dead(ledger)
    for path in ("/systems", "/systems/training", f"/systems/{letter.system}"):
        assert "data-opens" not in reader.get(path)
    for path in (f"dead/{letter.id}/retry", "training/pause", "training/skip"):
        assert "read-only" in reader.post(f"/systems/{path}", status=409).text
    assert dead(ledger).resolved_at is None


def test_links_of_the_settings_are_shown_where_a_browser_may_follow_them(home: Path, ledger: Ledger) -> None:
    links = {"Grafana": "http://hub:3000", "trick": "javascript:alert(1)"}
    text = Viewer(home, ledger, links=links).get("/systems")
    assert 'href="http://hub:3000"' in text
    assert "javascript:" not in text


def test_hostile_text_stays_text(home: Path, empty_ledger: Ledger) -> None:
    build(empty_ledger, None, hostile=True)
    log(home, "testing@box+0.log", *(told(float(n), "error", text) for n, text in enumerate(HOSTILE)), HOSTILE[0])
    viewer = Viewer(home, empty_ledger)
    for path in ("/systems", "/systems/testing", "/systems/diversity", "/systems/correction"):
        raw = viewer.client.get(path).text
        assert "<script>window" not in raw
        assert "<img src=x" not in raw
        assert "\x1b" not in raw
        assert "\u202e" not in raw
