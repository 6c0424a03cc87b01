"""The whole loop with real workers, a real Redis, a real model and its server, while its processes are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from ratchet.artifacts import ArtifactStore, weights_digest
from ratchet.bus.embedded_redis import EmbeddedRedis
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import (
    BatchRow,
    ChallengeRow,
    CheckpointRow,
    ClaimRow,
    DeadLetterRow,
    DeploymentRow,
    EvaluationRow,
    SuiteRow,
    VerdictRow,
)
from ratchet.run.local_stack import PAGE, SERVER, LocalStack
from ratchet.run.summary import completed_cycles
from ratchet.settings import Settings
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tests.support.workers import PATIENT, children_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]

PATIENCE_S = 1_500.0
"""Every wait ends with its condition; on a slow machine it is later. The limits only end a test that hangs."""
LOOK_S = 0.2
"""Pause between two looks into the ledger, which take CPU from the run."""
SMALL: dict[str, Any] = {
    "suites": {
        "families": [{"name": "reverse", "levels": [1]}],
        "probe_items": 30,
        "eval_items": 40,
        "confirm_items": 60,
        "max_new_tokens": 12,
    },
    "queue": {"low_water": 3_000, "high_water": 7_000, "batch_examples": 2_500},
    "hyperparams": {"max_length": 128, "learning_rate": 3e-3},
    "serving": {"port": 0, "watch_s": 0.5},
    "control": PATIENT.model_copy(update={"timer_s": 5.0}),  # eleven idle workers would take half of the CPU
}


@dataclass
class Loop:
    """A running loop whose processes can be killed."""

    stack: LocalStack
    redis: EmbeddedRedis
    killed: Counter[str] = field(default_factory=Counter)

    def read(self, query: Callable[[Session], Any]) -> Any:
        with self.stack.ledger.read() as session:
            return query(session)

    def wait(self, holds: Callable[[Session], Any], what: str) -> None:
        """Wait until it holds. A dead letter fails the wait at once, since it could never end."""

        def looked() -> bool:
            given_up = self.read(lambda session: [f"{row.system}: {row.error}" for row in session.query(DeadLetterRow)])
            assert given_up == []
            if self.read(holds):
                return True
            time.sleep(LOOK_S)
            return False

        wait_until(looked, PATIENCE_S, what)

    def kill(self, member: str) -> None:
        """SIGKILL a worker, or the server, at any moment; waits for one that is being restarted."""
        wait_until(lambda: self._killed(member), PATIENCE_S, f"{member} to be there to be killed")

    def kill_child(self, member: str) -> None:
        """SIGKILL a worker's child as soon as there is one."""
        wait_until(lambda: self._killed_children(member), PATIENCE_S, f"a child of {member} to be there to be killed")

    def _killed(self, member: str) -> bool:
        pid = self.stack.check()[member].pid
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed[member] += 1
            return True
        return False

    def _killed_children(self, member: str) -> bool:
        children = children_of(member, self.stack.settings.log_folder)
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        self.killed[f"child of {member}"] += len(children)
        return bool(children)

    def kill_fork_server(self) -> None:
        """SIGKILL the only one, which all workers share, with their children."""
        (server,) = self._fork_servers()
        server.kill()
        self.killed["fork server"] += 1

    def _fork_servers(self) -> list[psutil.Process]:
        """Those that the supervisor has started. Their children have the same command line, and other parents."""
        supervisor = psutil.Process(self.stack.check()[SERVER].pid).parent()
        assert supervisor is not None
        return [each for each in supervisor.children() if "ratchet.processes.fork_server" in each.cmdline()]

    def crash_redis(self) -> None:
        self.redis.kill()
        self.redis.start()
        self.killed["redis"] += 1


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    with EmbeddedRedis(tmp_path / "redis") as redis:
        settings = Settings(home=tmp_path / "run", redis={"url": redis.url}, **SMALL)
        with LocalStack(settings, lambda _said: None) as stack:
            yield Loop(stack, redis)


def count(table: Any, *where: Any) -> Callable[[Session], int]:
    return lambda session: int(session.scalar(select(func.count()).select_from(table).where(*where)) or 0)


def working(system: str) -> Callable[[Session], int]:
    """Whether the system works on a subject. A short one may end before a heartbeat notes its progress."""
    return count(ClaimRow, ClaimRow.system == system, ClaimRow.owner.is_not(None))


def test_a_killed_run_gives_the_same_result_as_an_uninterrupted_one(loop: Loop) -> None:
    chance = random.Random(11)
    systems = [name for name in loop.stack.check() if name not in (SERVER, PAGE)]
    assert len(systems) == 11
    loop.wait(count(BatchRow, BatchRow.state == "training"), "training to begin")
    loop.kill("training")
    loop.wait(working("training"), "training to go on")
    loop.kill_child("training")
    loop.wait(count(CheckpointRow, CheckpointRow.ordinal == 1), "a first checkpoint")
    loop.kill_fork_server()
    loop.kill("testing")
    loop.kill(SERVER)
    loop.kill(PAGE)
    loop.crash_redis()
    loop.wait(count(EvaluationRow, EvaluationRow.pool == "eval"), "a first evaluation")
    for system in chance.sample(systems, 3):
        loop.kill(system)
    loop.wait(count(ChallengeRow), "a challenge")
    loop.kill("deployment")
    loop.wait(count(DeploymentRow, DeploymentRow.action == "deploy"), "a deployment")
    loop.kill("deployment")
    loop.wait(lambda session: len(completed_cycles(session)) >= 2, "two cycles")
    loop.wait(lambda session: serving(session).actual_id == serving(session).desired_id, "the server")
    assert loop.killed.total() >= 11

    assert loop.read(count(DeadLetterRow)) == 0
    loop.read(every_subject_has_one_verdict)
    loop.read(no_row_was_trained_twice_or_missed)
    loop.read(every_challenge_and_deployment_happened_once)
    clients_get_the_deployed_checkpoint(loop)


def every_subject_has_one_verdict(session: Session) -> None:
    verdicts = Counter((row.system, row.subject_kind, row.subject_id) for row in session.query(VerdictRow))
    assert set(verdicts.values()) == {1}
    for checkpoint in completed_cycles(session):
        judged = {
            system for system, kind, subject in verdicts if (kind, subject) == ("checkpoint", checkpoint.checkpoint_id)
        }
        assert judged >= {"testing", "regression", "comparison", "calibration", "mining", "curriculum", "deployment"}
    for batch in session.query(BatchRow).where(BatchRow.state.in_(("queued", "training", "trained"))):
        assert ("correction", "batch", batch.id) in verdicts


def no_row_was_trained_twice_or_missed(session: Session) -> None:
    checkpoints = session.query(CheckpointRow).where(CheckpointRow.ordinal > 0).order_by(CheckpointRow.ordinal).all()
    assert [c.ordinal for c in checkpoints] == list(range(1, len(checkpoints) + 1))
    parents = [None, *(c.id for c in checkpoints)]
    for batch in session.query(BatchRow).where(BatchRow.state == "trained"):
        offsets = [c.offset for c in checkpoints if c.batch_id == batch.id]
        assert offsets == sorted(set(offsets))
        assert offsets[-1] == batch.offset == batch.examples
    quarantined = session.query(BatchRow).where(BatchRow.state == "quarantined").count()
    if not quarantined:
        assert [c.parent_id for c in checkpoints[1:]] == parents[1:-1]


def every_challenge_and_deployment_happened_once(session: Session) -> None:
    promoted = [row.checkpoint_id for row in session.query(DeploymentRow).where(DeploymentRow.action == "deploy")]
    assert promoted
    assert len(promoted) == len(set(promoted))
    spent: dict[str, list[int]] = {}
    for row in session.query(ChallengeRow).order_by(ChallengeRow.k):
        spent.setdefault(row.champion_id, []).append(row.k)
    assert all(ks == list(range(1, len(ks) + 1)) for ks in spent.values())
    uses = sum(row.uses for row in session.query(SuiteRow).where(SuiteRow.pool == "confirm"))
    assert uses == sum(map(len, spent.values()))


def clients_get_the_deployed_checkpoint(loop: Loop) -> None:
    def answer() -> httpx.Response:
        ask = {"model": "ratchet", "messages": [{"role": "user", "content": "reverse:abc"}], "max_tokens": 8}
        return httpx.post(f"{loop.stack.endpoint()}/v1/chat/completions", json=ask, timeout=300.0)

    def is_from_the_champion() -> bool:
        champion = loop.read(lambda session: session.get_one(CheckpointRow, serving(session).desired_id))
        try:
            response = answer()
        except httpx.TransportError:
            return False
        if response.status_code != 200 or response.headers["x-ratchet-checkpoint"] != champion.id:
            return False
        manifest = ArtifactStore(loop.stack.settings.artifact_url).manifest(champion.artifact)
        return bool(weights_digest(manifest) == champion.weights == response.json()["ratchet"]["weights"])

    wait_until(is_from_the_champion, PATIENCE_S, "an answer of the deployed checkpoint")
