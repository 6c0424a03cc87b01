"""Pages that somebody else fetches now and then: a tiny HTTP server in a thread, which idles at no cost."""

from __future__ import annotations

import logging
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from ratchet.errors import TransientError
from ratchet.watchdog import Watchdog, WatchedThread

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
WAKE_S = 0.5
LIMIT_S = 60.0
"""Every request has a thread of its own, so that accepting them never takes long."""

PORTS_TRIED = 64


class Page(NamedTuple):
    """The answer to a GET."""

    content_type: str
    body: bytes


Routes = Mapping[str, Callable[[], Page]]
Receivers = Mapping[str, Callable[[bytes], None]]

LONGEST_BODY = 1_000_000


class PageServer:
    """Serves the routes on the first free of ``ports_tried`` ports from ``port`` on, from ``start`` until ``close``.

    Port 0 takes any. A page that raises is answered 500, and the server goes on. ``receivers`` are given the bodies
    that are posted to their paths; a ValueError refuses one. ``watchdog`` judges its thread; another one may take its
    place before the start.
    """

    def __init__(
        self, host: str, port: int, routes: Routes, receivers: Receivers | None = None, ports_tried: int = PORTS_TRIED
    ):
        handler = type("Handler", (_Handler,), {"routes": dict(routes), "receivers": dict(receivers or {})})
        self._server = _bound(host, port, handler, ports_tried)
        self._closing = threading.Event()
        self.watchdog = Watchdog(LIMIT_S)
        self._thread: WatchedThread | None = None

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        def serve() -> None:
            self._server.serve_forever(WAKE_S)

        self._thread = WatchedThread(serve, self.watchdog, self._closing, name="pages", limit_s=LIMIT_S)
        self._server.service_actions = self._thread.watch.beat  # type: ignore[method-assign]
        self._thread.start()

    def close(self) -> None:
        """Free the port."""
        self._closing.set()
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, _request: Any, client_address: Any) -> None:
        log.info("a reader at %s hung up", client_address)


def _bound(host: str, port: int, handler: type[BaseHTTPRequestHandler], tried: int) -> _Server:
    """Raises TransientError if none of the ports is free."""
    for candidate in [port] if port == 0 else range(port, min(port + tried, 65_536)):
        try:
            return _Server((host, candidate), handler)
        except OSError as error:
            reason = error
    raise TransientError(f"none of {tried} ports from {port} on can be bound at {host}: {reason}")


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_TIMEOUT_S
    routes: ClassVar[Routes] = {}
    receivers: ClassVar[Receivers] = {}

    def do_GET(self) -> None:
        make = self.routes.get(self.path.partition("?")[0])
        if make is None:
            self._answer(404, Page("text/plain", f"there is {', '.join(self.routes)}\n".encode()))
            return
        try:
            status, page = 200, make()
        except Exception as error:  # answered to whoever asked; the server goes on
            log.error("%s cannot be shown", self.path, exc_info=error)
            status, page = 500, Page("text/plain", f"{type(error).__name__}: {error}\n".encode())
        self._answer(status, page)

    def do_POST(self) -> None:
        receive, length = self.receivers.get(self.path), int(self.headers.get("Content-Length") or 0)
        if receive is None or length > LONGEST_BODY:
            self._answer(404 if receive is None else 413, Page("text/plain", b"not here\n"))
            return
        try:
            receive(self.rfile.read(length))
            self._answer(200, Page("text/plain", b"ok\n"))
        except ValueError as error:
            self._answer(400, Page("text/plain", f"{error}\n".encode()))

    def _answer(self, status: int, page: Page) -> None:
        self.send_response(status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, *_args: Any) -> None:
        """Nothing: a scrape is no news."""
