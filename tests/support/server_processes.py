"""Inference servers in processes of their own, and the checkpoints that they serve."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ratchet.errors import RatchetError
from ratchet.inference.model_folder import weights_digest
from ratchet.serving.client import ServingClient
from ratchet.serving.server_home import announced_url
from ratchet.settings.serving import ServingSettings

from tests.support.tiny_model import build_tiny_model

START_S = 900.0
"""Only ends a test that hangs."""


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
    client: ServingClient
    told: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return announced_url(self.home) or ""

    @property
    def log(self) -> str:
        """What the process has written, and those before it in its home."""
        return log_file(self.home).read_text()

    def load(self, checkpoint: Checkpoint) -> None:
        self.client.load(checkpoint.id, str(checkpoint.path), checkpoint.weights)

    def end(self, number: int) -> int:
        """Send a signal and wait; the exit code, negative where a signal ended it."""
        self.process.send_signal(number)
        return self.process.wait(START_S)


def checkpoint(folder: Path, name: str, seed: int) -> Checkpoint:
    path = build_tiny_model(folder / name, seed=seed, initializer_range=0.3)
    return Checkpoint(name, path, weights_digest(path))


def log_file(home: Path) -> Path:
    return home.with_name(f"{home.name}.log")


def command(home: Path, port: int = 0) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "ratchet.serving.server", "--home", str(home), "--port", str(port)]


VLLM_COMMAND = shlex.join([sys.executable, "-W", "error", str(Path(__file__).with_name("fake_vllm.py"))]) + (
    " serve {path} --served-model-name {name} --port {port}"
)
"""The stand-in for ``vllm serve``, as a setting."""


@contextmanager
def server_processes() -> Iterator[Callable[..., Server]]:
    """A function that starts a server in a home, with these serving settings, and waits until it answers.

    All of them are killed at the end.

    ``program`` is the script of another server, for one with a made-up engine.
    """
    servers: list[Server] = []

    def run(home: Path, program: Path | None = None, **serving: str) -> Server:
        (home / "server.json").unlink(missing_ok=True)
        told = {f"RATCHET_SERVING__{name.upper()}": value for name, value in serving.items()}
        with log_file(home).open("a") as log:
            process = subprocess.Popen(
                command(home) if program is None else [sys.executable, "-W", "error", str(program), str(home)],
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **told},
                stdout=log,
                stderr=log,
            )
        servers.append(Server(process, home, wait_for(process, home), told))
        return servers[-1]

    try:
        yield run
    finally:
        for server in servers:
            server.client.close()
            if server.process.poll() is None:
                server.end(signal.SIGKILL)
            print(server.log[-4_000:])


def wait_for(process: subprocess.Popen[str], home: Path) -> ServingClient:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if announced_url(home) is not None:
            client = ServingClient.from_settings(ServingSettings(), home)
            try:
                client.health()
            except RatchetError:
                client.close()
            else:
                return client
        time.sleep(0.05)
    raise AssertionError(f"no server within {START_S:g} s, exit code {process.poll()}")
