"""Reports of a run about failing processes, and its stall detection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.tables import ClaimRow, LineageRow, WorkerRow
from ratchet.processes.messages import ProcessState
from ratchet.run.session import FailureReporter, StallDetector

from tests.support.story import batch_id


def write_log(folder: Path, name: str, *messages: str) -> None:
    (folder / f"{name}.log").write_text("".join(json.dumps({"message": each}) + "\n" for each in messages))


def add_failed(ledger: Ledger, ago_s: float, error: str) -> None:
    with ledger.write() as tx:
        seen = {"started_at": tx.now - ago_s, "seen_at": tx.now - ago_s}
        told = {"system": "training", "host": "here", "pid": 1, "version": "", "metrics_url": None}
        tx.session.merge(WorkerRow(name="training@here+0", **told, **seen, state="failed", error=error, failures=3))


@pytest.mark.parametrize(("exit_code", "said"), [(-9, "was killed by SIGKILL"), (70, "ended with code 70")])
def test_a_dead_worker_is_reported_with_its_exit_and_last_log_lines(
    ledger: Ledger, tmp_path: Path, exit_code: int, said: str
) -> None:
    failures = FailureReporter()
    write_log(tmp_path, "training@here+0", "loading", "step 1")
    died = {"training": ProcessState(pid=None, restarts=1, exit_code=exit_code)}
    assert list(failures.new(ledger, died, tmp_path)) == [
        f"training {said}: step 1 It is restarted, with growing pauses."
    ]
    again = {"training": ProcessState(pid=None, restarts=2, exit_code=exit_code)}
    assert list(failures.new(ledger, again, tmp_path)) == []


def test_failures_before_the_run_are_not_reported(ledger: Ledger, tmp_path: Path) -> None:
    add_failed(ledger, 60.0, "of old")
    failures = FailureReporter()
    assert list(failures.new(ledger, {}, tmp_path)) == []
    add_failed(ledger, 0.0, "of now")
    (said,) = failures.new(ledger, {}, tmp_path)
    assert "of now" in said


def test_a_worker_that_gave_its_reason_is_reported_once(ledger: Ledger, tmp_path: Path) -> None:
    failures = FailureReporter()
    write_log(tmp_path, "training@here+0", "this worker has failed")
    add_failed(ledger, 0.0, "no module")
    died = {"training": ProcessState(pid=None, restarts=1, exit_code=1)}
    assert len(list(failures.new(ledger, died, tmp_path))) == 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def idle_s(detector: StallDetector, ledger: Ledger) -> float:
    with ledger.read() as session:
        return detector.idle_s(session)


def test_a_ledger_at_rest_is_idle_until_a_claim_makes_progress(ledger: Ledger) -> None:
    clock = Clock()
    detector = StallDetector(clock)
    idle_s(detector, ledger)
    clock.now = 500.0
    assert idle_s(detector, ledger) == 500.0
    with ledger.write() as tx:
        tx.session.get_one(ClaimRow, ("training", "batch", batch_id(6))).progress += 1
    assert idle_s(detector, ledger) == 0.0


def test_a_pause_by_hand_is_not_a_stall(ledger: Ledger) -> None:
    clock = Clock()
    detector = StallDetector(clock)
    idle_s(detector, ledger)
    clock.now = 500.0
    with ledger.write() as tx:
        tx.session.get_one(LineageRow, "main").paused = True
    assert idle_s(detector, ledger) == 0.0
