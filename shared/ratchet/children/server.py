"""The fork server: imports heavy modules once, single-threaded, then forks a child an order.

Runs as ``python -m ratchet.children.server CONTROL_FD MODULE…`` and ends when the control socket closes,
taking its children with it. Requests: ``fork`` (with the child's socket and log as file descriptors),
``status`` (reaps) and ``signal``. A child stays a zombie until its status is asked for: its pid is its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from typing import NoReturn

from ratchet.children.channel import Message
from ratchet.children.child import live

_REQUEST_BYTES = 1 << 16


class ForkServer:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._children: set[int] = set()

    def serve(self) -> None:
        """Until the runner is gone, however it went; then nothing that was started here is left."""
        try:
            while self._serve_one():
                pass
        except ConnectionError:
            return
        finally:
            for pid in self._children:
                self._kill_group(pid)

    def _serve_one(self) -> bool:
        raw, handles, _, _ = socket.recv_fds(self._control, _REQUEST_BYTES, 2)
        if not raw:
            return False
        request = json.loads(raw)
        answer = getattr(self, f"_{request.pop('do')}")(*handles, **request)
        self._control.sendall(json.dumps(answer).encode() + b"\n")
        return True

    def _fork(self, end_handle: int, log_handle: int) -> Message:
        try:
            pid = os.fork()
            if pid == 0:
                self._be_child(end_handle, log_handle)
        except OSError as error:
            return {"error": str(error)}
        finally:
            os.close(end_handle)
            os.close(log_handle)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        self._children.add(pid)
        return {"pid": pid}

    def _be_child(self, end_handle: int, log_handle: int) -> NoReturn:
        try:
            self._control.close()
            live(socket.socket(fileno=end_handle), log_handle, self._pid)
        finally:
            os._exit(1)

    def _status(self, pid: int) -> Message:
        """``exit_code`` as in subprocess (negative: killed by that signal), None while the child runs."""
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return {"exit_code": None}
        self._kill_group(pid)
        self._children.discard(pid)
        return {"exit_code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}

    def _signal(self, pid: int, number: int) -> Message:
        if pid in self._children:
            os.kill(pid, number)
            if number == signal.SIGKILL:
                self._kill_group(pid)
        return {}

    def _kill_group(self, pid: int) -> None:
        """A child leads a group of its own; what it started must not outlive it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        for module in sys.argv[2:]:
            importlib.import_module(module)
    except Exception:  # noqa: BLE001  told to the runner, which names the module and the way out
        greeting: Message = {"error": traceback.format_exc()}
    else:
        greeting = {"threads": _thread_count()}
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ConnectionError):
        control.sendall(json.dumps(greeting).encode() + b"\n")
    if "error" not in greeting:
        ForkServer(control).serve()


def _thread_count() -> int:
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir("/proc/self/task"))
    return threading.active_count()


if __name__ == "__main__":
    main()
