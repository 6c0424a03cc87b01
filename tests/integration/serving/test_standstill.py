"""A server with a stalled batch or a dead thread reports it, refuses requests in time, and exits."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.errors import TransientError
from ratchet.watchdog import EXIT_STALLED

from tests.support.server_processes import START_S, Checkpoint, Server
from tests.support.workers import wait_until

from .faulty_server import END, STALL, STALL_S

pytestmark = pytest.mark.timeout(1_800)

Start = Callable[..., Server]
PROGRAM = Path(__file__).with_name("faulty_server.py")
TIMEOUT_S = 3.0


def serve(start: Start, blue: Checkpoint, home: Path) -> Server:
    server = start(home, program=PROGRAM, request_timeout_s=str(TIMEOUT_S))
    server.load(blue)
    server.client.switch(blue.id, 1)
    return server


def ask(server: Server, *, stream: bool = False) -> httpx.Response:
    turns = [{"role": "user", "content": "1+1="}]
    question = {"model": "ratchet", "messages": turns, "max_tokens": 2, "stream": stream}
    return httpx.post(f"{server.url}/v1/chat/completions", json=question, timeout=START_S)


def health(server: Server) -> tuple[int, str | None]:
    """Status and problem, or GONE."""
    try:
        response = httpx.get(f"{server.url}/health", timeout=START_S)
    except httpx.TransportError:
        return GONE
    return response.status_code, response.json()["problem"]


GONE = (0, None)
"""A starved test looks too late, when the server has exited already. tests/unit/serving shows /health for certain."""


def last_health(server: Server) -> tuple[int, str | None]:
    """The first answer that is not the usual one."""
    found: list[tuple[int, str | None]] = []
    wait_until(lambda: bool(found.append(health(server)) or found[-1] != (200, None)), START_S, "a problem")
    return found[-1]


def test_a_stalled_batch_fails_its_requests_in_time_and_ends_the_server(
    start: Start, blue: Checkpoint, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    server = serve(start, blue, home)
    assert ask(server).is_success
    (home / STALL).touch()
    with ThreadPoolExecutor(2) as pool:
        whole, stream = pool.submit(ask, server), pool.submit(ask, server, stream=True)
        found = last_health(server)
        assert (whole.result().status_code, whole.result().json()["error"]["code"]) == (503, "timeout")
        events = [json.loads(line[6:]) for line in stream.result().text.splitlines() if line.startswith("data: {")]
        assert events[-1]["error"]["code"] == "timeout"
    problem = f"thread batcher-blue has stood still for more than {STALL_S:g} s"
    assert found in ((503, problem), GONE)
    assert server.process.wait(START_S) == EXIT_STALLED
    assert problem in server.log
    assert 'faulty_server.py", line' in server.log, "where every thread is"


def test_late_answers_count_as_failures(start: Start, blue: Checkpoint, tmp_path: Path) -> None:
    """As the deployer's watch reads them. The batch continues before it counts as stalled."""
    home = tmp_path / "home"
    server = serve(start, blue, home)
    (home / STALL).touch()
    answer = ask(server)
    (home / STALL).unlink()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
    try:
        assert server.client.stats(blue.id).errors == 1
    except TransientError:  # a starved machine: it was ended after all
        assert server.process.wait(START_S) == EXIT_STALLED


def test_a_batch_whose_thread_ends_fails_health_and_ends_the_server(
    start: Start, blue: Checkpoint, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    server = serve(start, blue, home)
    (home / END).touch()
    refused = ask(server)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stalled")
    problem = "thread batcher-blue has ended unexpectedly"
    assert last_health(server) in ((503, problem), GONE)
    assert server.process.wait(START_S) == EXIT_STALLED
    assert problem in server.log
    again: Any = serve(start, blue, home)
    assert ask(again).is_success


def test_a_server_that_was_suspended_is_not_taken_for_stalled(start: Start, blue: Checkpoint, tmp_path: Path) -> None:
    """In the middle of a step, which then took longer than the limit by the clock alone."""
    home = tmp_path / "home"
    server = serve(start, blue, home)
    (home / STALL).touch()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server)
        wait_until(lambda: "ratchet_serving_in_flight 1.0" in metrics(server), START_S, "a request")
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(STALL_S + TIMEOUT_S)
        (home / STALL).unlink()
        server.process.send_signal(signal.SIGCONT)
        assert answer.result().status_code in (200, 503)
    assert ask(server).is_success
    assert health(server) == (200, None)
    assert server.process.poll() is None


def metrics(server: Server) -> str:
    return httpx.get(f"{server.url}/metrics", timeout=START_S).text
