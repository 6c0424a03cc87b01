from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ratchet.tasks import registry


class TeacherServer(ThreadingHTTPServer):
    """An OpenAI-compatible server that adds numbers. Every n-th answer is wrong, truncated, or reasoning alone; the
    requests of a range of numbers, from 1, are refused."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.wrong_every = 0
        self.cut_every = 0
        self.reasoned_every = 0
        self.refused = range(0)
        self.noting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, body: dict[str, Any]) -> tuple[str, str]:
        """Text and finish reason; the reason ``refused`` is an error, and ``reasoned`` spends all on reasoning."""
        with self.noting:
            self.asked.append(body)
            number = len(self.asked)
        problem = registry.get("chain_sum").parse(body["messages"][-1]["content"].removeprefix("Solve: "))
        assert problem is not None
        if number in self.refused:
            return "", "refused"
        if self.reasoned_every and number % self.reasoned_every == 0:
            return problem.solution, "reasoned"
        if self.cut_every and number % self.cut_every == 0:
            return problem.solution, "length"
        if self.wrong_every and number % self.wrong_every == 0:
            return f"{problem.question}0", "stop"
        return f"{problem.solution}", "stop"


class _Handler(BaseHTTPRequestHandler):
    server: TeacherServer

    def do_POST(self) -> None:
        text, reason = self.server.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        message = {"content": text}
        if reason == "reasoned":
            message, reason = {"content": "", "reasoning_content": text}, "length"
        choice = {"message": message, "finish_reason": reason}
        usage = {"prompt_tokens": 7, "completion_tokens": 5}
        content = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(400 if reason == "refused" else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def teacher_server() -> Iterator[TeacherServer]:
    server = TeacherServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()
