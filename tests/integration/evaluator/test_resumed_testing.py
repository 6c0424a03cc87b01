"""A real testing worker whose child, and then itself, is killed with SIGKILL in the middle of a suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import psutil
import pytest
from evaluator.systems.testing import SYSTEM as TESTING
from ratchet.evaluation.load_evaluation import load_evaluation
from ratchet.evaluation.record import ItemRecord, records_from_lines
from ratchet.ledger.suites import ALWAYS_TESTED, current, evaluation
from ratchet.processes.child_runner import ChildRunner

from tests.support.home import SMALL, Home, merged, small_home
from tests.support.tiny_model import build_tiny_model
from tests.support.workers import Stack, children_of, real_workers, wait_until

pytestmark = pytest.mark.slow

PATIENCE_S = 600.0
"""Every wait ends with its condition; the limit only ends a test that hangs."""
SECTIONS: dict[str, Any] = merged(
    {name: value for name, value in SMALL.items() if name != "control"},
    {"suites": {"probe_items": 40, "eval_items": 40, "max_new_tokens": 64}, "inference": {"batch_size": 1}},
)
"""A batch an item, and answers of some length: there is time to kill between the first answer and the last."""


def wide_tiny_model(spec: dict[str, Any]) -> dict[str, str]:
    """Wide random weights, so that every answer differs."""
    return {"folder": str(build_tiny_model(spec["folder"], seed=3, initializer_range=0.3))}


@contextmanager
def untested(folder: Path) -> Iterator[Home]:
    """A home whose base model was not tested yet."""
    with small_home(folder, wide_tiny_model, **SECTIONS) as home:
        yield home


@dataclass
class Testing:
    """A home with a testing worker whose processes can be killed."""

    __test__ = False
    home: Home
    stack: Stack

    def kill_child(self, suite: str) -> list[str]:
        """SIGKILL the answering child in the middle of the suite; returns the answers written so far."""
        child, answers = self._frozen(suite)
        child.kill()
        return answers

    def kill_worker(self, suite: str) -> list[str]:
        """SIGKILL the worker itself, and its child with it, in the same way."""
        _, answers = self._frozen(suite)
        os.kill(self._worker(), signal.SIGKILL)
        return answers

    def finished(self) -> dict[str, tuple[ItemRecord, ...]]:
        """The records by pool, once there is a verdict."""
        wait_until(lambda: bool(self.home.verdicts("testing")), PATIENCE_S, "a verdict")
        assert self.home.dead() == []
        return standing_records(self.home)

    def _frozen(self, suite: str) -> tuple[psutil.Process, list[str]]:
        """The child, stopped with some answers of the suite written and others not, so that it waits to be killed."""
        wait_until(lambda: len(self._written(suite)) > 1, PATIENCE_S, f"some answers of {suite}")
        child = self._child()
        child.suspend()
        answers = self._written(suite)
        assert 1 < len(answers) < len(self.home.suite_items(suite))
        assert self.home.verdicts("testing") == {}
        return child, answers

    def _written(self, suite: str) -> list[str]:
        """The longest file of answers to the suite, without its head and a torn last line."""
        parts = self.stack.settings.work_folder.glob(f"answers/*/*/{suite}.part.jsonl")
        return max((part.read_text().split("\n")[1:-1] for part in parts), key=len, default=[])

    def _worker(self) -> int:
        wait_until(lambda: self.stack.supervisor.processes()["testing"].pid is not None, PATIENCE_S, "a testing worker")
        pid = self.stack.supervisor.processes()["testing"].pid
        assert pid is not None
        return pid

    def _child(self) -> psutil.Process:
        (child,) = children_of("testing", self.stack.settings.log_folder)
        return child


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Testing, dict[str, list[str]]]]:
    """Testing that was killed in both suites, with the answers of each that were written by then."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with untested(folder) as home, real_workers(folder, ["testing"], **SECTIONS) as stack:
        testing = Testing(home, stack)
        answers = {"probe": testing.kill_child("probe"), "eval": testing.kill_worker("eval")}
        testing.finished()
        yield testing, answers


def standing_records(home: Home) -> dict[str, tuple[ItemRecord, ...]]:
    """The base model's record on the probe and eval suites."""
    with home.ledger.read() as session:
        rows = {pool: evaluation(session, home.base_id(), current(session, pool).id) for pool in ALWAYS_TESTED}
    return {pool: load_evaluation(home.artifacts, row).items for pool, row in rows.items() if row is not None}


def test_answers_from_before_a_kill_are_not_repeated(
    killed: tuple[Testing, dict[str, list[str]]],
) -> None:
    """An answer's latency was measured, so that no second answer is equal to the first."""
    testing, answers = killed
    for pool, records in standing_records(testing.home).items():
        before = records_from_lines(answers[pool])
        assert len({record.latency_s for record in before}) > 1
        assert set(before) <= set(records)
        assert len(records) == len(testing.home.suite_items(pool))
    assert testing.stack.supervisor.processes()["testing"].restarts == 1


def test_a_killed_run_gives_the_same_record_as_an_uninterrupted_one(
    killed: tuple[Testing, dict[str, list[str]]], tmp_path: Path
) -> None:
    testing, _ = killed
    with untested(tmp_path / "run") as home, ChildRunner(threads=home.settings.placement.threads) as children:
        home.bus(TESTING, children=children).sweep()
        undisturbed = standing_records(home)
    found = standing_records(testing.home)
    assert list(found) == list(undisturbed) == list(ALWAYS_TESTED)
    for pool in ALWAYS_TESTED:
        assert [r.model_dump(exclude={"latency_s"}) for r in found[pool]] == [
            r.model_dump(exclude={"latency_s"}) for r in undisturbed[pool]
        ]
