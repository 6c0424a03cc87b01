"""A chat server that answers, fails, hangs or is slow."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """A chat server that answers, fails, or hangs until it is released."""

    def __init__(self, mood: str) -> None:
        self.mood = mood
        self.released = threading.Event()
        self.asked = 0
        self.key: str | None = None
        self.body: dict[str, Any] = {}
        super().__init__(("127.0.0.1", 0), Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked += 1
        self.server.key = self.headers["authorization"]
        self.server.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.mood == "hangs":
            self.server.released.wait(60)
        if self.server.mood == "dawdles":
            self.server.released.wait(2)
        status = 500 if self.server.mood == "fails" else 200
        body = json.dumps(
            {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}], "system_fingerprint": "abc"}
        ).encode()
        try:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        return
