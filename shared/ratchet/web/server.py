"""The page as a process: ``ratchet web``, or ``python -m ratchet.web.server``, as `ratchet run` starts it."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence

import uvicorn

from ratchet import settings as setting_tree
from ratchet.disk import keep_private
from ratchet.errors import RatchetError, TransientError
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import require_current
from ratchet.ports import listen
from ratchet.settings import Settings
from ratchet.slow_clients import ImpatientProtocol
from ratchet.web.address import announce, page_address
from ratchet.web.app import build_app

log = logging.getLogger("ratchet.web")

DRAIN_S = 2
"""Open feeds end with the server; browsers connect again by themselves."""
TICK_S = 0.5
TRIM_S = 20.0
KEEP_ALIVE_S = 60
"""Longer than feed.APART_S, so that a browser asks for the new state of a page on the connection that it has."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; returns 0 after a clean shutdown, 1 if the page cannot be served."""
    parser = argparse.ArgumentParser(prog="python -m ratchet.web.server", description=__doc__)
    parser.add_argument("--port", type=int, help="port to bind, 0 for a free one (web.port)")
    parser.add_argument("--or-free", action="store_true", help="take a free port where that one is taken")
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        settings = setting_tree.load()
        port = settings.web.port if asked.port is None else asked.port
        listener = bound(settings.web.host, port, or_free=asked.or_free)
        serve(settings, listener, is_of_run=True)
    except RatchetError as error:
        print(f"ratchet web: {error}", file=sys.stderr)
        return 1
    return 0


def serve(settings: Settings, listener: socket.socket, *, is_of_run: bool = False) -> None:
    """Serve the page on a bound socket until a signal. Raises PreconditionFailed for a ledger of another version.

    The page of a run ``is_of_run`` and announces its address to it; a second page of the same home must not.
    """
    keep_private(settings.home)
    ledger = Ledger(settings.ledger_url)
    try:
        require_current(ledger)
        app = build_app(settings, ledger)
        if is_of_run:
            announce(settings.web_home, page_address(settings.web.host, listener.getsockname()[1]))
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            server_header=False,
            ws="none",
            lifespan="on",
            h11_max_incomplete_event_size=64 * 1024,
            limit_concurrency=1_000,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)  # uvicorn raises a signal again once it has drained
        _Server(config).run(sockets=[listener])
    finally:
        ledger.close()


def bound(host: str, port: int, *, or_free: bool) -> socket.socket:
    """A socket on that port; ``or_free``: or on any, where that one is taken."""
    try:
        return listen(host, port, "web.port")
    except TransientError as error:
        if not or_free:
            raise
        log.warning("%s", error)
        return listen(host, 0, "web.port")


class _Server(uvicorn.Server):
    """Looks twice a second whether it is to end, instead of ten times: most of what an idle page takes.

    While pages are drawn, it gives memory that they needed for a moment back to the system now and then.
    """

    async def main_loop(self) -> None:
        trim = _trimmer()
        trimmed_at, seen = time.monotonic(), 0
        while not await self.on_tick(0):
            await asyncio.sleep(TICK_S)
            requests = self.server_state.total_requests
            if requests != seen and time.monotonic() - trimmed_at >= TRIM_S:
                trim()
                trimmed_at, seen = time.monotonic(), requests


def _trimmer() -> Callable[[], object]:
    """glibc keeps what is freed in the middle of its heaps; elsewhere there is nothing to do."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return (lambda: trim(0)) if trim is not None else (lambda: None)


if __name__ == "__main__":
    sys.exit(main())
