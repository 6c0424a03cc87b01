"""A deployer that is killed at any point of a deployment: the next one finishes it, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evaluator.systems.calibration import SYSTEM as CALIBRATION
from evaluator.systems.comparison import SYSTEM as COMPARISON
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.failpoint import DEPLOYING
from ratchet.ledger import drills
from ratchet.ledger.tables import ClaimRow, OutboxRow
from ratchet.settings.section import environment

from tests.support.failpoints import arm

from .knowing import easy
from .test_drill import drilled, is_as_before, stored, with_champion

BEFORE = ("after-claim", *DEPLOYING[:-2], "after-work", "after-commit")
BACK = ("after-rollback", "after-return")


@dataclass
class Mortal:
    """Deployers that die where a point is armed."""

    process: subprocess.Popen[str]
    points: Path

    def sweep(self, deploying: Any) -> int:
        """Run a deployer process in the home; returns its exit code."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(environment(deploying.home.settings)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    points = tmp_path_factory.mktemp("points")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "dying.py")],
        env={**os.environ, "RATCHET_FAILPOINTS": str(points), "PYTHONPATH": str(Path(__file__).parents[4])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Mortal(process, points)
    process.communicate()


@pytest.mark.parametrize("point", BEFORE)
def test_an_interrupted_deployment_happens_once(deploying: Any, mortal: Mortal, point: str) -> None:
    base, better = judged(deploying)
    die_at(mortal, deploying, point)
    assert deploying.server.live() in (base, better)
    deploying.sweep()
    assert deploying.verdicts() == {better: "deployed"}
    assert deploying.deployments()[1:] == [("deploy", better)]
    assert deploying.challenges() == [(better, 1, "promote")]
    assert deploying.confirm_uses() == 1
    assert (deploying.server.live(), deploying.desired().actual_id) == (better, better)
    assert told(deploying, "checkpoint.deployed").count(better) == 1
    assert deploying.blocked() == deploying.home.dead() == []


@pytest.mark.parametrize("point", BACK)
def test_an_interrupted_rollback_happens_once(deploying: Any, mortal: Mortal, point: str) -> None:
    base, bad = judged(deploying)
    deploying.model(bad).drifts = lambda: deploying.server.live() == bad
    die_at(mortal, deploying, point)
    deploying.sweep()
    assert deploying.verdicts() == {bad: "rolled back"}
    assert deploying.deployments()[1:] == [("deploy", bad), ("rollback", base)]
    assert (deploying.server.live(), deploying.desired().actual_id) == (base, base)
    assert deploying.blocked() == [bad]
    assert told(deploying, "deployment.rolled_back") == [bad]
    assert deploying.home.dead() == []


@pytest.mark.parametrize("point", ["after-plant", "after-load"])
def test_an_interrupted_drill_is_cleaned_up_and_repeated_once(deploying: Any, mortal: Mortal, point: str) -> None:
    champion = with_champion(deploying)
    artifacts = stored(deploying)
    with deploying.home.ledger.write() as tx:
        row, _ = drills.request(tx, "operator", "to see")
    die_at(mortal, deploying, point)
    assert len(stored(deploying)) == len(artifacts) + 1
    assert deploying.server.loaded() - {deploying.home.base_id()} == {champion, *loaded_at(point, row.id)}
    deploying.sweep()
    again = drilled(deploying, row.id)
    assert (again.outcome, again.attempts) == ("caught", 2)
    assert is_as_before(deploying, champion, artifacts)


def loaded_at(point: str, drill_id: int) -> set[str]:
    return {f"drill-{drill_id}"} if point == "after-load" else set()


def judged(deploying: Any) -> tuple[str, str]:
    """The base model, live, and a better checkpoint with all records, on which deployment alone has no verdict."""
    deploying.sweep()
    base, better = deploying.home.base_id(), deploying.add(easy)
    deploying.home.add_record(base, "confirm", lambda _item: False)
    deploying.home.add_record(better, "confirm", easy)
    deploying.home.bus(REGRESSION, COMPARISON, CALIBRATION).sweep()
    return base, better


def die_at(mortal: Mortal, deploying: Any, point: str) -> None:
    """Kill a deployer at this point, and expire its claims."""
    arm(mortal.points, point)
    assert mortal.sweep(deploying) == -signal.SIGKILL
    assert not (mortal.points / point).exists()
    with deploying.home.ledger.write() as tx:
        tx.session.query(ClaimRow).update({ClaimRow.expires_at: 0.0})


def told(deploying: Any, name: str) -> list[str]:
    """The checkpoints of all events of that name."""
    with deploying.home.ledger.read() as session:
        rows = session.query(OutboxRow).filter_by(name=name).order_by(OutboxRow.seq)
        return [json.loads(row.body)["checkpoint_id"] for row in rows]
