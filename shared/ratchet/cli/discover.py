"""`ratchet discover`: what Prometheus needs of the hub."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from ratchet.metrics.discover import discovery
from ratchet.metrics.page import LIMIT_S
from ratchet.settings import load
from ratchet.watchdog import end_process
from ratchet.worker.logs import log_json


def discover(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 9100,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve Prometheus: the register of workers as /targets, metrics of the whole stack as /metrics.

    Runs until it is asked to stop. One is enough for all hosts.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log_json("discover", None)
    with discovery(load(), host, port) as server:
        typer.echo(f"serving /targets and /metrics at http://{host}:{server.port}")
        while not stop.wait(LIMIT_S):
            if problem := server.watchdog.look():
                end_process(problem)
