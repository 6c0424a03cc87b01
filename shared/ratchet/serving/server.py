"""The inference server as a process, for both engines: ``ratchet serve``, or ``python -m ratchet.serving.server``."""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from ratchet import settings as setting_tree
from ratchet.errors import RatchetError, ServingError
from ratchet.leases.gpus import GpuLimit, acquire_share, gpu_limit
from ratchet.plugins import require_plugins
from ratchet.ports import listen
from ratchet.serving.app import build_app
from ratchet.serving.engine import Engine, engine_of
from ratchet.serving.guard import Guard
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.server_home import ServerHome, StateFile, server_token
from ratchet.settings import Settings
from ratchet.settings.serving import ServingSettings
from ratchet.slow_clients import ImpatientProtocol
from ratchet.watchdog import Watchdog

log = logging.getLogger("ratchet.serving")

SWITCH_INTERVAL_S = 0.0005
"""Decoding releases the GIL at every torch operation; with Python's default of 5 ms it would wait too long for it."""


IDLE_CONNECTIONS = 1_000
"""Beside those with a request. Connections that send none are closed after a while (see ratchet.slow_clients)."""
OTHER_FILES = 512


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; returns 0 after a clean shutdown, 1 if the server cannot start."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        settings = setting_tree.load(asked.config)
        require_plugins(settings)
        with ServerHome(asked.home) as home:
            serve(settings, home, asked.host or settings.serving.host, asked.port)
    except RatchetError as error:
        print(f"ratchet inference server: {error}", file=sys.stderr)
        return 1
    return 0


def serve(settings: Settings, home: ServerHome, host: str, port: int | None) -> None:
    """Run in a locked home until a signal. On a GPU, a share of its memory is leased for the life of the process."""
    lease = acquire_share(settings, "serving", timeout_s=math.inf)
    share = gpu_limit(settings, lease) if lease else None
    if share is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share["devices"])
    watchdog = Watchdog()
    engine = engine_of(settings, home.folder, watchdog)
    serve_by(engine, settings, home, host, port, watchdog, share)


def serve_by(
    engine: Engine,
    settings: Settings,
    home: ServerHome,
    host: str,
    port: int | None,
    watchdog: Watchdog,
    share: GpuLimit | None = None,
) -> None:
    """Serve with this engine until a signal. If a thread stalls, the process ends."""
    token = server_token(settings.serving, home.folder)
    manager = ModelManager(settings.serving, StateFile(home.folder), engine.loader, engine.queue, watchdog)
    listener = listen(host, settings.serving.port if port is None else port, "serving.port", ServingError)
    address = f"http://{host}:{listener.getsockname()[1]}"
    home.announce(address)
    log.info(
        "serving %s/v1 with the %s engine; a model is loaded when one is deployed", address, settings.serving.engine
    )
    guard = Guard(watchdog, is_stopping=lambda: uvicorn_server.should_exit, drain_s=settings.serving.drain_s)
    config = uvicorn.Config(
        build_app(manager, settings.serving, token, guard.check),
        http=ImpatientProtocol,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=math.ceil(settings.serving.drain_s),
        limit_concurrency=most_connections(settings.serving),
    )
    uvicorn_server = uvicorn.Server(config)
    threading.Thread(target=_import_torch, args=(share,), name="import-torch", daemon=True).start()
    guard.start()
    _end_quietly_on_signals()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        uvicorn_server.run(sockets=[listener])
    finally:
        engine.close()  # the guard keeps running, to end a process that hangs after this


def most_connections(settings: ServingSettings) -> int:
    """Connections that are answered at a time; one more gets a 503. Those of requests that wait or run all fit.

    The limit of open files is raised for them, since a server without a free one accepts nobody.
    """
    most = settings.max_queue + settings.max_batch + IDLE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return most


def _import_torch(share: GpuLimit | None) -> None:
    """Import torch before the first load, and exclude its objects from garbage collection."""
    importlib.import_module("ratchet.inference.local_generator")
    if share is not None:
        importlib.import_module("ratchet.inference.gpu_limit").confine(share)
    gc.collect()
    gc.freeze()


def _end_quietly_on_signals() -> None:
    """uvicorn drains on a signal, then raises it again for the previous handler; make that a no-op."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ratchet.serving.server", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the server's state and token")
    parser.add_argument("--host", help="address to bind (serving.host)")
    parser.add_argument("--port", type=int, help="port to bind, 0 for a free one (serving.port)")
    parser.add_argument("--config", type=Path, help="settings file (ratchet.toml)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
