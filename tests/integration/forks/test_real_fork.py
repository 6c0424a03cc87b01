"""Fork mode with real workers, a real Redis and a real model: two branches, tested, decided, and gone on from."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.bus.embedded import EmbeddedRedis
from ratchet.bus.outbox import relaying_ledger
from ratchet.ledger import Ledger
from ratchet.ledger.forks import branches
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import Batch, Branch, Checkpoint, Claim, DeadLetter, Evaluation, Fork, Trial, Verdict
from ratchet.run.bootstrap import bootstrap
from ratchet.settings import Settings
from ratchet.testing.workers import PATIENT, wait_until
from ratchet.worker.nursery import Nursery
from sqlalchemy.orm import Session

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]

PATIENCE_S = 1_500.0
"""Every wait ends with its condition; the limits only end a test that hangs."""

SYSTEMS = ("training", "testing", "correction", "curriculum", "generation")
SMALL: dict[str, Any] = {
    "suites": {
        "families": [{"name": "reverse", "levels": [1, 2]}],
        "probe_items": 30,
        "eval_items": 20,
        "confirm_items": 40,
        "max_new_tokens": 12,
    },
    "queue": {"low_water": 1_200, "high_water": 4_000, "batch_examples": 1_200},
    "hyperparams": {"max_length": 128, "learning_rate": 3e-3},
    "curriculum": {"fork_every": 1, "mastery": 0.05, "hysteresis": 0.01},
    "control": PATIENT,
}


@dataclass
class Loop:
    """Running workers, and what a test asks of them."""

    settings: Settings
    ledger: Ledger
    nursery: Nursery

    def wait(self, holds: Callable[[Session], Any], what: str) -> None:
        """Until it holds. A dead letter ends the wait at once."""

        def looked() -> bool:
            with self.ledger.read() as session:
                assert [f"{row.system}: {row.error}" for row in session.query(DeadLetter)] == []
                return bool(holds(session))

        wait_until(looked, PATIENCE_S, what)

    def kill(self, system: str) -> None:
        def killed() -> bool:
            pid = self.nursery.pid_of(system)
            with suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    return True
            return False

        wait_until(killed, PATIENCE_S, f"{system} to be there to be killed")


@contextmanager
def running(home: Path) -> Iterator[Loop]:
    with EmbeddedRedis(home / "redis") as redis:
        settings = Settings(home=home / "run", redis={"url": redis.url}, **SMALL)
        ledger = relaying_ledger(settings)
        migrate(ledger)
        bootstrap(settings, ledger, ArtifactStore(settings.artifact_url))
        try:
            with Nursery(settings) as nursery:
                for system in SYSTEMS:
                    nursery.worker(system)
                yield Loop(settings, ledger, nursery)
        finally:
            ledger.close()


def on_the_second_branch(session: Session) -> bool:
    """Whether training is at work on it."""
    second = session.get(Branch, (1, 1))
    batch_id = second.batch_id if second is not None else None
    at_work = session.query(Claim).filter(
        Claim.system == "training", Claim.subject_id == batch_id, Claim.owner.is_not(None), Claim.progress > 0
    )
    return batch_id is not None and at_work.count() > 0


def gone_on(session: Session) -> bool:
    """Whether an ordinary batch was begun from the winner's tip."""
    fork = session.get(Fork, 1)
    if fork is None or fork.state == "open":
        return False
    tips = [row.tip_id for row in branches(session, 1)]
    return session.query(Checkpoint).filter(Checkpoint.parent_id.in_(tips)).count() > 0


def test_two_arms_are_trained_from_one_checkpoint_and_testing_decides(tmp_path: Path) -> None:
    with running(tmp_path) as loop:
        loop.wait(on_the_second_branch, "the second branch")
        loop.kill("training")
        loop.kill("curriculum")
        loop.wait(gone_on, "training to go on from the winner")
        artifacts = ArtifactStore(loop.settings.artifact_url)
        with loop.ledger.read() as session:
            check(session, artifacts)


def check(session: Session, artifacts: ArtifactStore) -> None:
    fork, rows = session.get_one(Fork, 1), branches(session, 1)
    assert fork.state == "decided", fork.reason
    assert rows[0].arm != rows[1].arm
    for row in rows:
        chain = session.query(Checkpoint).filter(Checkpoint.batch_id == row.batch_id).order_by(Checkpoint.ordinal).all()
        assert [c.parent_id for c in chain] == [fork.parent_id, *(c.id for c in chain[:-1])]
        assert row.tip_id == chain[-1].id
        assert artifacts.manifest(chain[0].artifact).provenance["parent"] == fork.parent_id
        batch = session.get_one(Batch, row.batch_id)
        assert (batch.state, batch.provenance["assignment"]["arm"]) == ("trained", row.arm)
        assert session.query(Evaluation).filter_by(checkpoint_id=row.tip_id, pool="probe").count() == 1
        assert session.get_one(Trial, row.tip_id).arm == row.arm
    first, second = (session.get_one(Checkpoint, row.tip_id) for row in rows)
    assert first.weights != second.weights
    assert abs(first.tokens - second.tokens) < 0.1 * (first.tokens - session.get_one(Checkpoint, fork.parent_id).tokens)
    numbers = fork.numbers
    assert numbers["items"] == 30
    assert fork.winner == numbers["winner"] == int(numbers["p"] <= 0.05 and numbers["gains"] > numbers["losses"])
    tip = rows[fork.winner].tip_id
    after = session.query(Checkpoint).filter(Checkpoint.parent_id == tip).order_by(Checkpoint.ordinal).first()
    assert after is not None
    assert artifacts.manifest(after.artifact).provenance["parent"] == tip
    loser = rows[1 - fork.winner].tip_id
    assert session.query(Checkpoint).filter(Checkpoint.parent_id == loser).count() == 0
    given = [(v.system, v.subject_kind, v.subject_id) for v in session.query(Verdict)]
    assert len(given) == len(set(given))
