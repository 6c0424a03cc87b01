"""ASGI applications behind real sockets, for tests of what streams and of who goes away in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from tests.support.viewer import action_headers

PATIENCE_S = 60.0
"""Only ends a test that hangs."""


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of the application, which is served from a thread for the block."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", ws="none", lifespan="on", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while not server.started:
        assert thread.is_alive(), "the server has not started"
        assert time.monotonic() < deadline, "the server has not started"
        time.sleep(0.01)
    try:
        yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


def token_of(client: httpx.Client) -> dict[str, str]:
    """The headers that the first page has its requests sent with; the client then has its session."""
    return action_headers(client.get("/").text)


@contextmanager
def browser_of(url: str) -> Iterator[httpx.Client]:
    """A client that acts as a browser on a page of the Control Room: with its session and its token."""
    with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S) as client:
        client.headers.update(token_of(client))
        yield client
