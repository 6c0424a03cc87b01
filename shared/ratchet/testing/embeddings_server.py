"""A stand-in for a server of embeddings: a text's vector counts its letters and digits."""

from __future__ import annotations

import json
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIGNS = string.ascii_lowercase + string.digits


class EmbeddingsServer(ThreadingHTTPServer):
    """Answers on ``url``; ``asked`` are the bodies of all requests. ``answers`` are given first, as (status, body)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.answers: list[tuple[int, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingsServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append({**body, "path": self.path})
        entries = [{"index": index, "embedding": letters(text)} for index, text in enumerate(body["input"])]
        status, said = self.server.answers.pop(0) if self.server.answers else (200, {"data": entries[::-1]})
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def letters(text: str) -> list[float]:
    """The vector of a text."""
    return [float(text.count(sign)) for sign in SIGNS]


@contextmanager
def embeddings_server() -> Iterator[EmbeddingsServer]:
    """One for the block."""
    server = EmbeddingsServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
