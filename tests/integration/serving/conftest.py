"""Real servers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from ratchet.errors import RatchetError
from ratchet.inference.digest import weights_digest
from ratchet.serving.client import EmbeddedServerClient
from ratchet.serving.home import announced_url
from ratchet.settings.serving import ServingSettings
from ratchet.testing.tiny_model import build_tiny_model

START_S = 120.0


@dataclass(frozen=True)
class Checkpoint:
    id: str
    path: Path
    weights: str


@dataclass
class Server:
    """A server process and a client of it."""

    process: subprocess.Popen[str]
    home: Path
    client: EmbeddedServerClient

    @property
    def url(self) -> str:
        return announced_url(self.home) or ""

    def load(self, checkpoint: Checkpoint) -> None:
        self.client.load(checkpoint.id, str(checkpoint.path), checkpoint.weights)

    def end(self, number: int) -> int:
        """Send a signal and wait; the exit code, negative where a signal ended it."""
        self.process.send_signal(number)
        return self.process.wait(60)


def checkpoint(folder: Path, name: str, seed: int) -> Checkpoint:
    path = build_tiny_model(folder / name, seed=seed, initializer_range=0.3)
    return Checkpoint(name, path, weights_digest(path))


@pytest.fixture(scope="session")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("checkpoints"), "blue", 3)


@pytest.fixture(scope="session")
def green(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("checkpoints"), "green", 4)


def command(home: Path, port: int = 0) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "ratchet.serving.server", "--home", str(home), "--port", str(port)]


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[Path], Server]]:
    """Starts a server in a home, and waits until it answers."""
    servers: list[Server] = []

    def run(home: Path) -> Server:
        (home / "server.json").unlink(missing_ok=True)
        process = subprocess.Popen(command(home), text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        servers.append(Server(process, home, wait_for(process, home)))
        return servers[-1]

    yield run
    for server in servers:
        server.client.close()
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def wait_for(process: subprocess.Popen[str], home: Path) -> EmbeddedServerClient:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if announced_url(home) is not None:
            client = EmbeddedServerClient.from_settings(ServingSettings(), home)
            try:
                client.health()
            except RatchetError:
                client.close()
            else:
                return client
        time.sleep(0.05)
    raise AssertionError(f"no server within {START_S:g} s, exit code {process.poll()}")
