"""The servers that are compared, each in a process of its own, on one thread."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import psutil
from ratchet.inference.model_folder import weights_digest
from ratchet.serving.client import ServingClient
from ratchet.serving.server_home import announced_url
from ratchet.settings.serving import ServingSettings

from benchmarks.serving.load import Target

START_S = 240.0
"""Only ends a start that hangs: a busy machine takes minutes."""


class NoServer(Exception):
    """A server does not start; the message is the end of what it said."""


@contextmanager
def embedded(home: Path, model: Path) -> Iterator[tuple[Target, ServingClient]]:
    """Ratchet's own, with the model live."""
    command = [sys.executable, "-m", "ratchet.serving.server", "--home", str(home), "--port", "0"]
    with (
        _process(command, lambda: announced_url(home)) as (url, cpu_s),
        ServingClient.from_settings(ServingSettings(), home) as client,
    ):
        client.load("blue", str(model), weights_digest(model))
        client.switch("blue", 1)
        yield Target(url, "ratchet", cpu_s), client


@contextmanager
def transformers_serve(executable: Path, model: Path, *options: str) -> Iterator[Target]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [str(executable), "serve", "--host", "127.0.0.1", "--port", str(port), *options, str(model)]
    with _process(command, lambda: url) as (_, cpu_s):
        yield Target(url, str(model), cpu_s)


@contextmanager
def _process(command: list[str], url: Callable[[], str | None]) -> Iterator[tuple[str, Callable[[], float]]]:
    """A process whose address answers /health, and the CPU seconds of it and its children."""
    with tempfile.TemporaryFile() as log:
        try:
            started = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        except FileNotFoundError:
            raise NoServer(f"there is no {command[0]}") from None
        try:
            yield _answering(started, log, url), lambda: _cpu_s(started.pid)
        finally:
            if started.poll() is None:
                for process in (*psutil.Process(started.pid).children(recursive=True), started):
                    process.kill()
            started.wait()


def _answering(process: subprocess.Popen[bytes], log: IO[bytes], url: Callable[[], str | None]) -> str:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        address = url()
        try:
            if address and httpx.get(f"{address}/health", timeout=5).status_code < 500:
                return address
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    log.seek(0)
    raise NoServer(log.read().decode(errors="replace")[-400:])


def _cpu_s(pid: int) -> float:
    server = psutil.Process(pid)
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return float(sum(spent.user + spent.system for spent in times))
