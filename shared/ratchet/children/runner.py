"""Runs a function in a child process: JSON in, progress and JSON out, no pickle, no shared state."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.children.conversation import Conversation
from ratchet.children.process import ChildProcess, ServerGone, ServerProcess
from ratchet.closing import Closing
from ratchet.errors import ChildFailed, TransientError

_EXIT_S = 10.0
_TAIL_BYTES = 8_000
_LOG_LIMIT_BYTES = 16_000_000


def _ignore(_message: dict[str, Any]) -> None:
    pass


class ChildRunner(Closing):
    """Forks a child a run from a server that has imported ``preload``; the server starts with the first run.

    Any number of threads may run children at once. Whatever happens to this process, no child outlives it.
    ``threads`` is what OpenMP and BLAS take by default in a child; ``env`` overrides the environment.
    """

    def __init__(self, preload: Sequence[str] = (), *, threads: int = 1, env: Mapping[str, str] | None = None) -> None:
        self._preload = tuple(preload)
        self._env = {**os.environ, **_with_threads(threads), **(env or {})}
        self._server: ServerProcess | None = None
        self._starting = threading.Lock()

    def start(self) -> int:
        """Start the fork server now, unless it runs; returns its pid."""
        return self._living_server().pid

    def close(self) -> None:
        """End the fork server and all its children."""
        with self._starting:
            server, self._server = self._server, None
        if server is not None:
            server.close()

    def run(
        self,
        target: str,
        spec: Mapping[str, Any],
        *,
        on_progress: Callable[[dict[str, Any]], None] = _ignore,
        should_stop: Callable[[], bool] = lambda: False,
        stall_s: float = 600.0,
        log_path: Path = Path(os.devnull),
        grace_s: Callable[[], float] = lambda: 10.0,
    ) -> dict[str, Any]:
        """Call ``target`` (``module:function``) with (spec, progress) in a child and return its JSON result.

        Raises ChildFailed when it raises, dies, or says nothing for ``stall_s``; TransientError when it
        raises one or finds its disk full; SettingsError when it finds a setting or a plug-in's name wrong. When
        ``should_stop`` turns true the child gets SIGTERM and ``grace_s``, which may grow meanwhile: a result that it
        still hands back is returned, else Stopping is raised. Stdout and stderr are appended to ``log_path``.
        """
        with _open_log(log_path) as handle:
            child = self._fork(handle)
            log_start = os.fstat(handle).st_size
        conversation = Conversation(child, target, on_progress, should_stop, stall_s, grace_s)
        exit_s = 0.0
        try:
            result = conversation.hold(spec)
            exit_s = _EXIT_S
            return result
        except ChildFailed as failure:
            failure.trace = failure.trace or _tail(log_path, log_start)
            raise
        finally:
            child.end(exit_s)

    def _fork(self, log_handle: int) -> ChildProcess:
        for _ in range(2):
            server = self._living_server()
            try:
                return server.fork(log_handle)
            except ServerGone:
                self._retire(server)
        raise TransientError("The fork server dies as soon as it is asked for a child; see its stderr.")

    def _living_server(self) -> ServerProcess:
        with self._starting:
            if self._server is None or not self._server.is_alive():
                if self._server is not None:
                    self._server.close()
                self._server = ServerProcess(self._preload, self._env)
            return self._server

    def _retire(self, server: ServerProcess) -> None:
        with self._starting:
            if self._server is server:
                self._server = None
        server.close()


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[int]:
    """Append to ``path``; a log that has grown too long is moved aside, replacing the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _tail(path: Path, start: int) -> str:
    """The last bytes that the child wrote; no further back than ``start``."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def _with_threads(threads: int) -> dict[str, str]:
    """Few threads, so that the server can fork and children do not fight; CUDA stays untouched."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
