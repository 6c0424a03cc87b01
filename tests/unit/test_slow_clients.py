"""Connections that send no request, or send it too slowly, are closed; slow answers and steady uploads are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from ratchet import slow_clients
from ratchet.slow_clients import ImpatientProtocol
from starlette.types import Receive, Scope, Send

PATIENCE_S = 60.0
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: "


async def count_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the size of the body; /slow is answered after longer than a request may take to arrive."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        if not message["more_body"]:
            break
    if scope["path"] == "/slow":
        await asyncio.sleep(4 * slow_clients.BODY_S)
    answer = str(size).encode()
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def server() -> AsyncIterator[int]:
    config = uvicorn.Config(count_body, http=ImpatientProtocol, port=0, lifespan="off", log_level="critical")
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: ImpatientProtocol(config, state, {}), "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
        for connection in list(state.connections):
            connection.shutdown()  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "HEAD_S", 0.4)
    monkeypatch.setattr(slow_clients, "BODY_S", 0.4)
    monkeypatch.setattr(slow_clients, "BYTES_PER_S", 1_000.0)


async def answer_to(*parts: bytes, apart_s: float = 0.0) -> bytes:
    """What the server sends until it closes the connection or has answered once."""
    async with server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for part in parts:
                writer.write(part)
                await asyncio.sleep(apart_s)
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read(10_000)
        except ConnectionError:
            return b""
        finally:
            writer.close()


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: loc", POST + b"100\r\n\r\n12345", POST + b"9\r\n\r\n"],
    ids=["nothing", "half a head", "half a body", "no body"],
)  # fmt: skip
def test_a_request_that_does_not_arrive_is_given_up(sent: bytes) -> None:
    assert asyncio.run(answer_to(sent)) == b""


def test_a_byte_now_and_then_does_not_help() -> None:
    head = [bytes([each]) for each in b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    assert asyncio.run(answer_to(*head, apart_s=0.05)) == b""
    body = [b"x"] * 100
    assert asyncio.run(answer_to(POST + b"100\r\n\r\n", *body, apart_s=0.05)) == b""


def test_a_body_that_keeps_arriving_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "BODY_S", 2.0)
    parts = [b"x" * 1_000] * 10
    assert asyncio.run(answer_to(POST + b"10000\r\n\r\n", *parts, apart_s=0.25)).endswith(b"\r\n\r\n10000")


def test_an_answer_may_take_long() -> None:
    request = b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert asyncio.run(answer_to(request)).endswith(b"\r\n\r\n0")


def test_later_requests_on_a_connection_have_the_same_limit() -> None:
    async def ask() -> tuple[bytes, bytes]:
        async with server() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            whole = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            writer.write(whole)
            first = await reader.read(10_000)
            writer.write(whole[:10])
            async with asyncio.timeout(PATIENCE_S):
                second = await reader.read(10_000)
            writer.close()
            return first, second

    first, second = asyncio.run(ask())
    assert first.endswith(b"0")
    assert second == b""
