"""Clients that disconnect, and clients in flight when the server stops."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from ratchet.inference.model_folder import weights_digest

from tests.support.server_processes import START_S, Checkpoint, Server
from tests.support.tiny_model import build_tiny_model
from tests.support.workers import wait_until

pytestmark = pytest.mark.timeout(1_800)

Start = Callable[..., Server]
ENDLESS = 60_000


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A model that repeats itself, in a context that leaves room for it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "endless"
    path = build_tiny_model(folder, seed=3, max_position_embeddings=2 * ENDLESS)
    return Checkpoint("endless", path, weights_digest(path))


def serve(start: Start, endless: Checkpoint, home: Path, **settings: str) -> Server:
    server = start(home, max_new_tokens=str(ENDLESS), request_timeout_s=str(START_S), **settings)
    server.load(endless)
    server.client.switch(endless.id, 1)
    return server


def asked(tokens: int, *, stream: bool = False) -> dict[str, object]:
    turns = [{"role": "user", "content": "1"}]
    return {"model": "ratchet", "messages": turns, "max_tokens": tokens, "stream": stream}


def measured(server: Server, name: str) -> float:
    """A metric by its name and labels; 0 where there is none."""
    lines = httpx.get(f"{server.url}/metrics", timeout=START_S).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def wait_for(server: Server, name: str, value: float) -> None:
    wait_until(lambda: measured(server, name) == value, START_S, name)


def test_a_disconnected_client_leaves_the_batch_and_an_unfinished_answer_gets_a_503_at_shutdown(
    start: Start, endless: Checkpoint, tmp_path: Path
) -> None:
    server = serve(start, endless, tmp_path / "home", drain_s="0.5")
    host, port = server.url.removeprefix("http://").split(":")
    for count, stream in enumerate((False, True), start=1):
        body = json.dumps(asked(ENDLESS, stream=stream)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode() + body)
            wait_for(server, "ratchet_serving_in_flight", 1)
        wait_for(server, "ratchet_serving_in_flight", 0)
        wait_for(server, 'ratchet_serving_requests_total{status="499"}', count)
    assert server.client.stats(endless.id).errors == 0
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{server.url}/v1/chat/completions", json=asked(ENDLESS), timeout=START_S)
        wait_for(server, "ratchet_serving_in_flight", 1)
        assert server.end(signal.SIGTERM) == 0
        assert answer.result().json()["error"]["code"] == "shutting_down"
        assert int(answer.result().headers["retry-after"]) > 0


def test_a_stopping_server_finishes_the_answers_in_flight(start: Start, endless: Checkpoint, tmp_path: Path) -> None:
    server = serve(start, endless, tmp_path / "home", drain_s="600")
    with ThreadPoolExecutor(1) as pool:
        route = f"{server.url}/v1/chat/completions"
        answer = pool.submit(httpx.post, route, json=asked(500), timeout=START_S)
        wait_until(lambda: answer.done() or measured(server, "ratchet_serving_in_flight") == 1, START_S, "a request")
        assert server.end(signal.SIGTERM) == 0
        assert answer.result().json()["usage"]["completion_tokens"] == 500
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")
