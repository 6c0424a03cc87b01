"""Training as several processes, by a real worker on a real Redis: one status, one checkpoint, no leftovers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from ratchet.cli.doctor.machine import leased
from ratchet.ledger import operator_actions
from ratchet.ledger.tables import BatchRow, CheckpointRow, DeadLetterRow, OutboxRow
from ratchet.run.base_model import prepare_base_model

from tests.support.examples import sums
from tests.support.home import Home, small_home
from tests.support.workers import SHORT, Stack, children_of, real_workers, wait_until

PATIENCE_S = 600.0
"""Every wait ends with its condition; the limit only ends a test that hangs."""
# Two cards that may be leased, and that torch does not find: so the processes that `auto` makes of them speak gloo.
SECTIONS: dict[str, Any] = {
    "placement": {"gpus_gb": (24, 24)},
    "hyperparams": {"batch_size": 4, "max_length": 128},
    "monitoring": {"preview_backend": "none"},
    "control": SHORT.model_copy(update={"liveness_s": 600.0, "grace_s": 60.0, "sweep_factor": 0.02}),
}


@dataclass
class Training:
    """A training worker that a test can observe and kill."""

    home: Home
    stack: Stack
    begun_at: float = 0.0

    def batch(self, batch_id: str) -> BatchRow:
        with self.home.ledger.read() as session:
            given_up = [f"{row.subject_id}: {row.error}" for row in session.query(DeadLetterRow)]
            assert given_up == []
            return session.get_one(BatchRow, batch_id)

    def checkpoints(self, batch_id: str) -> list[CheckpointRow]:
        with self.home.ledger.read() as session:
            found = session.query(CheckpointRow).filter(CheckpointRow.batch_id == batch_id)
            return list(found.order_by(CheckpointRow.ordinal))

    def times_told(self, checkpoint: CheckpointRow) -> int:
        """How many `checkpoint.saved` events there are."""
        with self.home.ledger.read() as session:
            saved = session.query(OutboxRow).filter(OutboxRow.name == "checkpoint.saved")
            return sum(json.loads(row.body)["checkpoint_id"] == checkpoint.id for row in saved)

    def ranks(self) -> list[int]:
        """The processes that train now, in the order of their start: rank 0 is the first."""
        found = set()
        for child in children_of("training", self.stack.settings.log_folder):
            with suppress(psutil.Error):
                below = {child, *child.children(recursive=True)}
                found |= {each.pid for each in below if "--rank" in each.cmdline()}
        return sorted(found)

    def status(self) -> dict[str, Any]:
        path = self.home.settings.status_folder / "training_status.json"
        with suppress(OSError):
            told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return told
        return {}

    def at_work(self, batch_id: str) -> list[int]:
        """Two processes that have taken steps on the batch since this was asked last."""

        def are_at_it() -> bool:
            self.batch(batch_id)
            status = self.status()
            begun_at = status.get("started_at", 0.0)
            if begun_at <= self.begun_at or status.get("state") != "training" or not status.get("examples_done"):
                return False
            self.begun_at = begun_at
            return True

        self.wait(are_at_it, "two processes to train")
        ranks = self.ranks()
        assert len(ranks) == 2
        return ranks

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        wait_until(holds, PATIENCE_S, what)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    folder = tmp_path_factory.mktemp("several") / "run"

    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model(spec, lambda _message: None)

    with small_home(folder, prepare, **SECTIONS) as home, real_workers(folder, ["training"], **SECTIONS) as stack:
        yield Training(home, stack)


@pytest.mark.slow
def test_two_processes_train_a_batch_and_save_one_checkpoint_with_one_event(training: Training) -> None:
    batch_id = training.home.add_batch(sums(48, longest=4), state="queued")
    training.wait(lambda: training.batch(batch_id).state == "trained", "the batch to be trained")
    (checkpoint,) = training.checkpoints(batch_id)
    assert (checkpoint.offset, checkpoint.step) == (48, 6), "each step takes the rows of both"
    assert training.times_told(checkpoint) == 1
    status = training.status()
    assert (status["state"], status["processes"], status["step"]) == ("finished", 2, 6)
    assert training.ranks() == []


@pytest.mark.slow
def test_a_killed_rank_ends_all_ranks_and_the_segment_is_trained_again(training: Training) -> None:
    """The batch is long, so that there is something to kill, and is skipped afterwards."""
    batch_id = training.home.add_batch(sums(6_000, longest=4, seed=2), state="queued")
    training.begun_at = training.status().get("started_at", 0.0)
    dead = training.at_work(batch_id)
    assert [leased(training.home.settings.lease_folder, card) for card in "01"] == [{"training": 12}] * 2
    os.kill(dead[1], signal.SIGKILL)
    training.wait(lambda: not any(map(psutil.pid_exists, dead)), "both to be gone")
    alive = training.at_work(batch_id)
    assert not {*dead} & {*alive}
    assert training.checkpoints(batch_id) == []

    with training.home.ledger.write() as tx:
        operator_actions.skip(tx, tx.session.get_one(BatchRow, batch_id))
    training.wait(lambda: "skipped" in training.home.verdicts("training").values(), "the verdict")
    (checkpoint,) = training.checkpoints(batch_id)
    assert 0 < checkpoint.offset < 6_000
    assert training.times_told(checkpoint) == 1
    training.wait(lambda: training.ranks() == [], "nobody to be left")
    assert training.status()["state"] == "interrupted"
