"""Thousands of clients that disconnect in every phase of a request; later clients are answered as usual."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server_processes import START_S, Checkpoint, Server
from tests.support.workers import wait_until

pytestmark = pytest.mark.timeout(1_800)

HANG_UPS = 2_000
AT_ONCE = 20
ONE_BY_ONE = 25
"""An idle server has nobody else's request that would keep its batch going."""

FRESH_S = 10.0
"""How long a fresh client waits. The server needs milliseconds; a starved machine may take seconds."""

NEWLINE = b"\r\n"


def request(*, stream: bool = False, tokens: int = 1_000) -> tuple[bytes, bytes]:
    """Head and body of a chat completion."""
    turns = [{"role": "user", "content": "1+1="}]
    asked = {"model": "ratchet", "messages": turns, "max_tokens": tokens, "stream": stream}
    body = json.dumps(asked).encode()
    fields = ("POST /v1/chat/completions HTTP/1.1", "host: here", f"content-length: {len(body)}", "", "")
    return "\r\n".join(fields).encode(), body


class Client:
    """A connection that is closed, or reset as by a killed client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def hang_up(self, by_reset: bool) -> None:
        if by_reset:
            connection: socket.socket = self.writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort() if by_reset else self.writer.close()


async def in_the_headers(client: Client) -> None:
    head, _ = request()
    await client.send(head[: random.randrange(1, len(head) - len(NEWLINE))])


async def in_the_body(client: Client) -> None:
    head, body = request()
    await client.send(head + body[: random.randrange(len(body))])
    await asyncio.sleep(random.choice((0.0, 0.002)))


async def while_it_waits(client: Client) -> None:
    head, body = request()
    await client.send(head + body)


async def while_it_is_answered(client: Client) -> None:
    head, body = request()
    await client.send(head + body)
    await asyncio.sleep(random.uniform(0.005, 0.1))


async def in_a_stream(client: Client) -> None:
    head, body = request(stream=True)
    await client.send(head + body)
    while (line := await client.reader.readline()) and not line.startswith(b"data:"):
        pass
    await asyncio.sleep(random.choice((0.0, 0.02)))


PHASES = (in_the_headers, in_the_body, while_it_waits, while_it_is_answered, in_a_stream)
Phase = Callable[[Client], Any]


async def hang_up(url: str, phase: Phase, by_reset: bool) -> None:
    host, port = url.removeprefix("http://").split(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    try:
        await asyncio.wait_for(phase(client), START_S)
    finally:
        client.hang_up(by_reset)


async def hang_up_often(url: str) -> None:
    """One by one while the server is idle, in each phase; then many at once in mixed phases."""
    for number in range(ONE_BY_ONE):
        for phase in PHASES:
            await hang_up(url, phase, by_reset=number % 2 == 0)
    gate = asyncio.Semaphore(AT_ONCE)

    async def through(number: int) -> None:
        async with gate:
            await hang_up(url, PHASES[number % len(PHASES)], by_reset=random.random() < 0.5)

    await asyncio.gather(*(through(number) for number in range(HANG_UPS - ONE_BY_ONE * len(PHASES))))


def ask(server: Server) -> httpx.Response:
    question = {"model": "ratchet", "messages": [{"role": "user", "content": "2+2="}], "max_tokens": 2}
    return httpx.post(f"{server.url}/v1/chat/completions", json=question, timeout=START_S)


def measured(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=START_S).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_two_thousand_disconnected_clients_leave_nothing_behind(
    start: Callable[..., Server], blue: Checkpoint, tmp_path: Path
) -> None:
    server = start(tmp_path / "home", request_timeout_s=str(FRESH_S))
    server.load(blue)
    server.client.switch(blue.id, 1)
    asyncio.run(hang_up_often(server.url))
    assert ask(server).json().get("error") is None
    wait_until(lambda: measured(server, "ratchet_serving_in_flight") == 0, START_S, "rows without a client to end")
    assert server.client.health().problem is None
    assert server.client.health().waiting == 0
    assert server.client.stats(blue.id).errors == 0
    assert measured(server, 'ratchet_serving_requests_total{status="500"}') == 0
    assert measured(server, 'ratchet_serving_requests_total{status="499"}') > 0
    assert "Traceback" not in server.log
    assert server.process.poll() is None
