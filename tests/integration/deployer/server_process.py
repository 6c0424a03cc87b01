"""A home with real models and a real server process, and the deployer in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from deployer.systems.deployment import SYSTEM as DEPLOYMENT
from evaluator.systems.testing import SYSTEM as TESTING
from ratchet.artifacts import weights_digest
from ratchet.inference.tiny import build_tiny_model
from ratchet.ledger import operator_actions
from ratchet.ledger.tables import CheckpointRow
from ratchet.serving.server_home import announced_url
from ratchet.settings.section import environment

from tests.support.home import Home
from tests.support.workers import wait_until

PATIENCE_S = 900.0
"""Only ends a test that hangs: every wait ends with its condition."""


@dataclass
class Deploying:
    """A home with real models, and a server process."""

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

    def add_seed(self, seed: int) -> str:
        """A checkpoint with an untrained model of that seed."""
        return self.add_model(build_tiny_model(self.scratch / f"seed-{seed}", seed))

    def add_model(self, folder: Path) -> str:
        """A checkpoint with the model in a folder."""
        checkpoint = self.home.add_checkpoint()
        artifact = self.home.artifacts.publish(folder, "checkpoint", {})
        with self.home.ledger.write() as tx:
            row = tx.session.get_one(CheckpointRow, checkpoint)
            row.artifact, row.weights = artifact.id, weights_digest(artifact.manifest)
        return checkpoint

    def sweep(self) -> list[str]:
        return [event.name for event in self.home.bus(TESTING, DEPLOYMENT).sweep()]

    def deploy_by_hand(self, checkpoint: str) -> None:
        with self.home.ledger.write() as tx:
            operator_actions.deploy(tx, tx.session.get_one(CheckpointRow, checkpoint), "to see", force=True)

    def answerer(self) -> tuple[str, str]:
        """Checkpoint and weights that answered a client."""
        question = {"model": "ratchet", "messages": [{"role": "user", "content": "1+2="}], "max_tokens": 4}
        response = httpx.post(f"{self.url()}/v1/chat/completions", json=question, timeout=PATIENCE_S)
        body: dict[str, Any] = response.raise_for_status().json()
        assert response.headers["x-ratchet-checkpoint"] == body["ratchet"]["checkpoint"]
        return body["ratchet"]["checkpoint"], body["ratchet"]["weights"]

    def identity(self, checkpoint: str) -> tuple[str, str]:
        with self.home.ledger.read() as session:
            return checkpoint, session.get_one(CheckpointRow, checkpoint).weights

    def url(self) -> str:
        return announced_url(self.home.settings.serving_home) or ""

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url()}/health", timeout=5.0).is_success
        except (httpx.TransportError, httpx.UnsupportedProtocol):
            return False
