"""The deployer, a real server process and real models: who answers, what a restart does, what a canary catches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from evaluator.systems.testing import SYSTEM as TESTING
from ratchet.artifacts import weights_digest
from ratchet.inference.tiny import build_tiny_model
from ratchet.ledger import hand
from ratchet.ledger.line import serving
from ratchet.ledger.tables import Bar, Checkpoint, Evaluation
from ratchet.run.base_model import prepare_base_model
from ratchet.serving.home import announced_url
from ratchet.settings.reveal import environment
from ratchet.testing.home import Home, small_home
from ratchet.testing.workers import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATIENCE_S = 180.0


@dataclass
class Deploying:
    """A home with real untrained models, each of its own seed, and a server process."""

    home: Home
    scratch: Path
    server: subprocess.Popen[bytes] | None = None

    def start_server(self) -> None:
        settings = self.home.settings
        settings.log_folder.mkdir(exist_ok=True)
        with open(settings.log_folder / "server.log", "ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "ratchet.serving.server", "--home", str(settings.serving_home)],
                env={**os.environ, **environment(settings), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, PATIENCE_S, "the server")

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def add_model(self, seed: int) -> str:
        """A checkpoint with a model of that seed."""
        checkpoint = self.home.add_checkpoint()
        folder = build_tiny_model(self.scratch / f"seed-{seed}", seed)
        artifact = self.home.artifacts.publish(folder, "checkpoint", {})
        with self.home.ledger.write() as tx:
            row = tx.session.get_one(Checkpoint, checkpoint)
            row.artifact, row.weights = artifact.id, weights_digest(artifact.manifest)
        return checkpoint

    def sweep(self) -> list[str]:
        return [event.name for event in self.home.bus(TESTING, DEPLOYMENT).sweep()]

    def deploy_by_hand(self, checkpoint: str) -> None:
        with self.home.ledger.write() as tx:
            hand.deploy(tx, tx.session.get_one(Checkpoint, checkpoint), "to see", force=True)

    def answerer(self) -> tuple[str, str]:
        """Checkpoint and weights that answered a client."""
        question = {"model": "ratchet", "messages": [{"role": "user", "content": "1+2="}], "max_tokens": 4}
        response = httpx.post(f"{self._url()}/v1/chat/completions", json=question, timeout=60.0)
        body: dict[str, Any] = response.raise_for_status().json()
        assert response.headers["x-ratchet-checkpoint"] == body["ratchet"]["checkpoint"]
        return body["ratchet"]["checkpoint"], body["ratchet"]["weights"]

    def identity(self, checkpoint: str) -> tuple[str, str]:
        with self.home.ledger.read() as session:
            return checkpoint, session.get_one(Checkpoint, checkpoint).weights

    def _url(self) -> str:
        return announced_url(self.home.settings.serving_home) or ""

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self._url()}/health", timeout=5.0).is_success
        except (httpx.TransportError, httpx.UnsupportedProtocol):
            return False


@pytest.fixture
def deploying(tmp_path: Path) -> Iterator[Deploying]:
    def prepare(spec: dict[str, Any]) -> dict[str, str]:
        return prepare_base_model(spec, lambda _message: None)

    told = {"port": 0, "watch_s": 0.0, "canary_items": 8}
    with small_home(tmp_path / "run", prepare, serving=told) as home:
        deploying = Deploying(home, tmp_path)
        deploying.start_server()
        yield deploying
        deploying.kill_server()


def test_clients_are_answered_by_what_was_judged_and_deployed_across_restarts(deploying: Deploying) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    assert deploying.answerer() == deploying.identity(base)

    newer = deploying.add_model(seed=1)
    deploying.sweep()
    assert deploying.answerer() == deploying.identity(base)
    deploying.deploy_by_hand(newer)
    deploying.sweep()
    assert deploying.home.verdicts("deployment") == {newer: "deployed"}
    assert deploying.answerer() == deploying.identity(newer)

    deploying.kill_server()
    deploying.start_server()
    assert deploying.answerer() == deploying.identity(newer)

    deploying.kill_server()
    (deploying.home.settings.serving_home / "state.json").unlink()
    deploying.start_server()
    deploying.sweep()
    assert deploying.answerer() == deploying.identity(newer)
    assert deploying.home.dead() == []


def test_a_model_that_is_not_the_one_that_was_judged_is_rolled_back_and_barred(deploying: Deploying) -> None:
    base = deploying.home.base_id()
    deploying.sweep()
    judged = deploying.add_model(seed=1)
    deploying.sweep()
    other = deploying.add_model(seed=2)
    with deploying.home.ledger.write() as tx:
        for row in tx.session.query(Evaluation).where(Evaluation.checkpoint_id == judged):
            copied = {c.name: getattr(row, c.name) for c in Evaluation.__table__.columns}
            copied |= {"id": f"{other}/{row.suite_id}", "checkpoint_id": other}
            tx.session.add(Evaluation(**copied))
    deploying.deploy_by_hand(other)
    heard = deploying.sweep()
    assert "deployment.rolled_back" in heard
    assert deploying.home.verdicts("deployment")[other] == "rolled back"
    assert deploying.answerer() == deploying.identity(base)
    with deploying.home.ledger.read() as session:
        assert [row.checkpoint_id for row in session.query(Bar)] == [other]
        assert serving(session).desired_id == base
