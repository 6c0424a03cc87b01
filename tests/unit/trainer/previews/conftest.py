from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from .chat_server import Server


@pytest.fixture
def serve() -> Iterator[Callable[[str], Server]]:
    servers: list[Server] = []

    def start(mood: str) -> Server:
        servers.append(Server(mood))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()
