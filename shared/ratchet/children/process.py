"""The runner's side of the fork server and of each child."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from ratchet.children.channel import Channel, Message
from ratchet.errors import TransientError

log = logging.getLogger(__name__)

_POLL_S = 0.01


class ServerGone(Exception):
    """The fork server died; its children died with it."""


class ServerProcess:
    """A running fork server. One request at a time; any thread may ask."""

    def __init__(self, preload: Sequence[str], env: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ratchet.children.server", str(theirs.fileno()), *preload],
                env=dict(env),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._control = ours
        self._answers = Channel(ours)
        self._asking = threading.Lock()
        self._greet(preload)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, log_handle: int) -> ChildProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                answer = self.ask({"do": "fork"}, [theirs.fileno(), log_handle])
            except ServerGone:
                ours.close()
                raise
        if "error" in answer:
            ours.close()
            raise TransientError(f"No child can be forked: {answer['error']}. Free memory or raise the limit.")
        return ChildProcess(self, int(answer["pid"]), Channel(ours))

    def ask(self, request: Message, handles: Sequence[int] = ()) -> Message:
        with self._asking:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], list(handles))
                answer = self._answers.receive_one()
            except (OSError, ValueError) as error:
                raise ServerGone from error
        if answer is None:
            raise ServerGone
        return answer

    def close(self) -> None:
        """End the server and every child of it."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _greet(self, preload: Sequence[str]) -> None:
        greeting = self._answers.receive_one()
        if greeting is None or "error" in greeting:
            self.close()
            reason = f"it ended with {self._process.returncode}" if greeting is None else greeting["error"]
            raise TransientError(
                f"The fork server could not import {', '.join(preload)}: {reason}\n"
                "Install the missing package, or run this system in an image that has it."
            )
        if greeting["threads"] > 1:
            log.warning(
                "The fork server runs %d threads after importing %s; a child forked while one of them holds "
                "a lock can hang. Preload only modules that start none.",
                greeting["threads"],
                ", ".join(preload),
            )


class ChildProcess:
    """One forked child, leader of its own process group."""

    def __init__(self, server: ServerProcess, pid: int, channel: Channel) -> None:
        self.pid = pid
        self.channel = channel
        self._server = server
        self._exit_code: int | None = None

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal killed it, as -9 when the whole server was killed."""
        if self._exit_code is None:
            try:
                self._exit_code = self._server.ask({"do": "status", "pid": self.pid})["exit_code"]
            except ServerGone:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                self._exit_code = -signal.SIGKILL
        return self._exit_code

    def send_signal(self, number: int) -> None:
        """SIGKILL goes to all that the child started, any other signal to the child alone."""
        with contextlib.suppress(ServerGone):
            self._server.ask({"do": "signal", "pid": self.pid, "number": int(number)})

    def wait(self, timeout_s: float) -> int | None:
        deadline = time.monotonic() + timeout_s
        while self.exit_code() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self._exit_code

    def end(self, patience_s: float) -> None:
        """Let it exit for ``patience_s``, then kill it; gone, with its memory, when this returns."""
        if self.wait(patience_s) is None:
            self.send_signal(signal.SIGKILL)
            while self.wait(timeout_s=1.0) is None:
                log.warning("child %d does not die; waiting", self.pid)
        self.channel.close()
