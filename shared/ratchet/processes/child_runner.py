"""Runs a function in a child process: JSON in, progress and JSON out, no pickle, no shared state.

Models run in such children, so that all their memory, including a GPU's, is freed when they exit. The children are
forked from a server that has already imported torch. It does not know what the function computes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ratchet.errors import ChildFailed, RatchetError, SettingsError, Stopping, TransientError
from ratchet.processes.fork_server import DUMP_SIGNAL
from ratchet.processes.managed_process import describe_exit, kill_group
from ratchet.processes.messages import (
    Channel,
    ChildForked,
    ChildMessage,
    ChildStatus,
    ForkChild,
    ForkFailed,
    ForkReply,
    ImportFailed,
    PollChild,
    ProgressReport,
    Ready,
    RunTarget,
    ServerConnection,
    ServerGone,
    ServerProcess,
    SignalChild,
    TargetError,
    TargetResult,
    decode,
    encode,
)

log = logging.getLogger(__name__)

EXIT_S = 10.0
"""How long a child may take to exit after its result; then it is killed."""
DUMP_S = 1.0
"""Time for a child and its own processes to dump their threads' stacks."""
SERVER_EXIT_S = 5.0
TICK_S, POLL_S = 0.25, 0.01
TAIL_BYTES = 8_000
LOG_LIMIT_BYTES = 16_000_000


def _ignore(_message: dict[str, Any]) -> None:
    pass


class ChildRunner:
    """Forks a child for each run from a server that has imported ``preload``; the server starts with the first run.

    Any number of threads may run children at once. No child outlives this process, even if it is killed. ``threads`` is
    the number of OpenMP and BLAS threads in a child; ``env`` overrides the environment. ``shared`` is the channel to a
    fork server that several runners use: while it lives, and has imported its modules, no other is started.
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        *,
        threads: int = 1,
        env: Mapping[str, str] | None = None,
        shared: Channel | None = None,
    ) -> None:
        self._preload = tuple(preload)
        self._env = {**os.environ, **with_threads(threads), **(env or {})}
        self._shared = shared
        self._server: ServerConnection | None = None
        self._server_pid = 0
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def start(self) -> int:
        """Start the fork server now, unless it runs; returns its pid."""
        self._living_server()
        return self._server_pid

    def close(self) -> None:
        """End the fork server and all its children."""
        with self._starting:
            server, self._server = self._server, None
        if server is not None:
            server.close(SERVER_EXIT_S)

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

        Raises ChildFailed when it raises, dies, or reports nothing for ``stall_s``; TransientError when it raises one
        or finds its disk full; SettingsError when it finds a setting or a plug-in's name wrong. When ``should_stop``
        turns true the child gets SIGTERM and ``grace_s``, which may grow meanwhile: a result that it still sends is
        returned, else Stopping is raised. Stdout and stderr are appended to ``log_path``.
        """
        with _open_log(log_path) as handle:
            child = self._fork(handle)
            log_start = os.fstat(handle).st_size
        exit_s = 0.0
        try:
            result = _Run(child, target, on_progress, should_stop, stall_s, grace_s).result(spec)
            exit_s = EXIT_S
            return result
        except ChildFailed as failure:
            failure.trace = failure.trace or _tail(log_path, log_start)
            raise
        finally:
            child.end(exit_s)

    def _fork(self, log_handle: int) -> _Child:
        for _ in range(2):
            server = self._living_server()
            try:
                return _Child.fork(server, log_handle)
            except ServerGone:
                self._retire(server)
        raise TransientError("The fork server exits whenever it is asked for a child; see its stderr.")

    def _living_server(self) -> ServerConnection:
        with self._starting:
            if self._server is None or self._server.has_ended():
                if self._server is not None:
                    self._server.close(SERVER_EXIT_S)
                self._server = self._shared_server() or self._started_server()
            return self._server

    def _shared_server(self) -> ServerConnection | None:
        """The connection to the shared server, once: when that is gone this runner has one of its own."""
        channel, self._shared = self._shared, None
        if channel is None:
            return None
        server = ServerConnection(channel)
        if self._is_ready(server.first()):
            return server
        server.close(SERVER_EXIT_S)
        return None

    def _started_server(self) -> ServerConnection:
        server = ServerProcess("ratchet.processes.fork_server", *self._preload, environment=self._env)
        greeting: ForkReply | None = server.first()
        if self._is_ready(greeting):
            return server
        server.close(SERVER_EXIT_S)
        reason = greeting.trace if isinstance(greeting, ImportFailed) else server.describe_end()
        raise TransientError(
            f"The fork server could not import {', '.join(self._preload)}: {reason}\n"
            "Install the missing package, or run this system in an image that has it."
        )

    def _is_ready(self, greeting: ForkReply | None) -> bool:
        if not isinstance(greeting, Ready):
            return False
        self._server_pid = greeting.pid
        if greeting.threads > 1:
            log.warning(
                "The fork server runs %d threads after importing %s; a child forked while one of them holds "
                "a lock can hang. Preload only modules that start none.",
                greeting.threads,
                ", ".join(self._preload),
            )
        return True

    def _retire(self, server: ServerConnection) -> None:
        with self._starting:
            if self._server is server:
                self._server = None
        server.close(SERVER_EXIT_S)


class _Child:
    """One forked child, which its server signals and reaps on request."""

    def __init__(self, server: ServerConnection, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self._server = server
        self._exit_code: int | None = None

    @classmethod
    def fork(cls, server: ServerConnection, log_handle: int) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                reply: ForkReply = server.ask(ForkChild(), [theirs.fileno(), log_handle])
            except ServerGone:
                ours.close()
                raise
        if isinstance(reply, ForkFailed):
            ours.close()
            raise TransientError(f"No child can be forked: {reply.error}. Free memory or raise the limit.")
        assert isinstance(reply, ChildForked)
        return cls(server, reply.pid, Channel(ours))

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal killed it, as -9 when the whole server was killed."""
        if self._exit_code is None:
            try:
                status: ChildStatus = self._server.ask(PollChild(self.pid))
                self._exit_code = status.exit_code
            except ServerGone:
                kill_group(self.pid)
                self._exit_code = -signal.SIGKILL
        return self._exit_code

    def send_signal(self, number: int) -> None:
        """SIGKILL is sent to the child and everything it started, any other signal only to the child."""
        with contextlib.suppress(ServerGone):
            self._server.ask(SignalChild(self.pid, int(number)))

    def wait(self, timeout_s: float) -> int | None:
        deadline = time.monotonic() + timeout_s
        while self.exit_code() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return self._exit_code

    def end(self, exit_s: float) -> None:
        """Wait for it to exit, then kill it. Its memory is free when this returns."""
        if self.wait(exit_s) is None:
            self.send_signal(signal.SIGKILL)
            while self.wait(timeout_s=1.0) is None:
                log.warning("child %d does not exit; waiting", self.pid)
        self.channel.close()


class _Run:
    """One run of a child, from the request to the result or what ends it; see ChildRunner.run."""

    def __init__(
        self,
        child: _Child,
        target: str,
        on_progress: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        stall_s: float,
        grace_s: Callable[[], float],
    ) -> None:
        self._child, self._target = child, target
        self._on_progress, self._should_stop = on_progress, should_stop
        self._stall_s, self._grace_s = stall_s, grace_s
        self._progress_at = time.monotonic()
        self._stop_asked_at: float | None = None

    def result(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(ConnectionError):  # _messages raises for a child that is dead already
            self._child.channel.send(encode(RunTarget(self._target, dict(spec))))
        while True:
            for message in self._messages():
                self._progress_at = time.monotonic()
                match message:
                    case ProgressReport(progress):
                        self._on_progress(progress)
                    case TargetResult(result):
                        return result
                    case TargetError():
                        raise self._failure(message)
            self._check_stop()
            self._check_stall()

    def _messages(self) -> Iterator[ChildMessage]:
        """The messages of one tick. Everything that a dead child has sent is read before its death is raised."""
        channel = self._child.channel
        for message in channel.receive(TICK_S):
            yield decode(message)
        if channel.closed or self._child.exit_code() is not None:
            for message in channel.drain():
                yield decode(message)
            raise self._death()

    def _check_stop(self) -> None:
        if self._stop_asked_at is None:
            if self._should_stop():
                self._stop_asked_at = time.monotonic()
                self._child.send_signal(signal.SIGTERM)
        elif time.monotonic() > self._stop_asked_at + self._grace_s():
            raise self._stopping()

    def _check_stall(self) -> None:
        silence_s = time.monotonic() - self._progress_at
        if silence_s > self._stall_s:
            self._child.send_signal(DUMP_SIGNAL)
            self._child.wait(DUMP_S)
            raise ChildFailed(
                f"{self._target} made no progress for {silence_s:.0f} s and was killed; "
                "raise its system's step time if it needs longer between two progress reports."
            )

    def _failure(self, error: TargetError) -> RatchetError:
        if self._stop_asked_at is not None:
            return self._stopping()
        failure = ChildFailed(
            f"{self._target} raised {error.type}: {error.message}",
            error_type=error.type,
            out_of_memory=error.is_out_of_memory,
            trace=error.trace,
        )
        for kind, is_of_kind in ((TransientError, error.is_transient), (SettingsError, error.is_of_settings)):
            if is_of_kind:
                own_error = kind(error.message)
                own_error.__cause__ = failure
                return own_error
        return failure

    def _death(self) -> RatchetError:
        if self._stop_asked_at is not None:
            return self._stopping()
        exit_code = self._child.wait(EXIT_S)
        if exit_code is None:
            return ChildFailed(f"{self._target} closed its channel without a result, and was killed.")
        if exit_code >= 0:
            return ChildFailed(f"{self._target} exited with code {exit_code} and no result; see its log.")
        hint = "; the kernel does that when memory runs out" if exit_code == -signal.SIGKILL else ""
        return ChildFailed(f"The child that ran {self._target} {describe_exit(exit_code)}{hint}.", killed=True)

    def _stopping(self) -> Stopping:
        return Stopping(f"{self._target} was stopped before it had a result.")


@contextlib.contextmanager
def _open_log(path: Path) -> Iterator[int]:
    """Append to ``path``; a log that has grown too long is moved aside, replacing the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_LIMIT_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _tail(path: Path, start: int) -> str:
    """The last bytes that the child wrote, from ``start`` on at the earliest."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        file.seek(max(start, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")


def with_threads(threads: int) -> dict[str, str]:
    """Environment for few threads, so that the server can fork and children do not compete for cores."""
    count = str(threads)
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    }
