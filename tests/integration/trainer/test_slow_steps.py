"""A training worker is stopped while its steps take longer than `grace_s`: no trained step is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ratchet.ledger.tables import BatchRow, CheckpointRow, ClaimRow
from ratchet.run.base_model import prepare_base_model
from ratchet.worker.stopping import stopping_workers

from tests.support.examples import sums
from tests.support.home import Home, small_home
from tests.support.workers import SHORT, Stack, real_workers, wait_until

ROWS, STEP_ROWS = 6_000, 1_500
"""Four steps of some seconds each on one core."""
GRACE_S = 1.0
PATIENCE_S = 240.0


@dataclass
class Training:
    home: Home
    stack: Stack
    batch_id: str

    def status(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads((self.home.settings.status_folder / "training_status.json").read_text())
            return told
        return {}

    def checkpoints(self) -> list[CheckpointRow]:
        with self.home.ledger.read() as session:
            return list(session.query(CheckpointRow).where(CheckpointRow.ordinal > 0).order_by(CheckpointRow.ordinal))

    def batch(self) -> BatchRow:
        with self.home.ledger.read() as session:
            return session.get_one(BatchRow, self.batch_id)

    def claims(self) -> list[ClaimRow]:
        with self.home.ledger.read() as session:
            return list(session.query(ClaimRow).where(ClaimRow.owner.is_not(None)))

    def wait_for_a_step(self) -> None:
        wait_until(lambda: (self.status().get("examples_done") or 0) >= STEP_ROWS, PATIENCE_S, "a step")


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model(spec, lambda _message: None)

    sections: dict[str, Any] = {
        "hyperparams": {"batch_size": STEP_ROWS, "max_length": 128},
        "monitoring": {"preview_backend": "none"},
        "control": SHORT.model_copy(update={"liveness_s": 600.0, "grace_s": GRACE_S, "sweep_factor": 0.02}),
    }
    folder = tmp_path / "run"
    with small_home(folder, prepare, **sections) as home:
        batch_id = home.add_batch(sums(ROWS, seed=1, longest=6), state="queued")
        with real_workers(folder, ["training"], **sections) as stack:
            yield Training(home, stack, batch_id)


def test_a_stop_waits_for_the_step_and_the_save_and_nothing_is_trained_again(training: Training) -> None:
    training.wait_for_a_step()
    trained = training.status()["examples_done"]
    training.stack.supervisor.stop_process("training")
    wait_until(
        lambda: bool(stopping_workers(training.home.settings.status_folder)), PATIENCE_S, "the worker to say it stops"
    )
    (worker,) = stopping_workers(training.home.settings.status_folder)
    assert worker.system == "training"
    assert worker.note.startswith(f"batch {training.batch_id[:8]}")
    wait_until(lambda: training.stack.supervisor.processes()["training"].exit_code == 0, PATIENCE_S, "its end")
    (saved,) = training.checkpoints()
    assert saved.offset > trained
    assert saved.save_s is not None
    assert training.claims() == []
    training.stack.supervisor.start_worker("training")
    wait_until(lambda: training.batch().state == "trained", PATIENCE_S, "the rest")
    assert training.checkpoints()[-1].offset == ROWS
    assert training.checkpoints()[-1].step == ROWS // STEP_ROWS
    assert training.home.dead() == []


def test_a_stop_in_the_first_step_waits_for_it_and_shows_what_is_waited_for(training: Training) -> None:
    """No step has been measured yet, and one takes longer than the grace period."""
    wait_until(lambda: training.status().get("state") == "training", PATIENCE_S, "the first step")
    said = list[str]()
    training.stack.supervisor.close(said.append)
    (saved,) = training.checkpoints()
    assert saved.offset >= STEP_ROWS
    assert "finishes a step" in said[0]
    assert said
    assert all(text.startswith(f"waiting for training (batch {training.batch_id[:8]}") for text in said), said


def test_a_second_stop_request_does_not_wait(training: Training) -> None:
    training.wait_for_a_step()
    pid = training.stack.supervisor.processes()["training"].pid
    assert pid is not None
    training.stack.supervisor.stop_process("training")
    wait_until(
        lambda: bool(stopping_workers(training.home.settings.status_folder)), PATIENCE_S, "the worker to say it stops"
    )
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: training.stack.supervisor.processes()["training"].pid is None, PATIENCE_S, "its end")
    assert training.checkpoints() == []
    assert training.claims() == []
