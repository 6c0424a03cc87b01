"""A process that this process started: starting, signalling, killing with all its descendants, and reaping it.

It does not know what the process does, or whether it is restarted.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

EXIT_CRASHED = 1
HANDLED = (signal.SIGTERM, signal.SIGINT)
"""Signals that the servers handle, and that a forked process must not receive with their handlers."""

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.01


class ManagedProcess:
    """A started process, the leader of its own process group."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit_code: int | None = None
        self._reaping = threading.Lock()

    @classmethod
    def fork(cls, body: Callable[[], int], *, parent_death_signal: int = signal.SIGTERM) -> ManagedProcess:
        """Run ``body`` in a fork of this process and exit with the code that it returns.

        Only for single-threaded processes: a lock that another thread holds at the fork stays locked in the child. The
        process receives ``parent_death_signal`` when this one ends. Raises OSError.
        """
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                _live(body, parent, parent_death_signal, mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        with suppress(ProcessLookupError, PermissionError):  # on both sides of the fork, so that neither has to wait
            os.setpgid(pid, pid)
        return cls(pid)

    @classmethod
    def execute(cls, command: Sequence[str], environment: Mapping[str, str], log: Path) -> ManagedProcess:
        """Fork, and run a command line with additions to the environment; its output is appended to ``log``."""

        def body() -> int:
            log.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            os.execvpe(command[0], list(command), {**os.environ, **environment})

        return cls.fork(body)

    @classmethod
    def spawn(
        cls, command: Sequence[str], environment: Mapping[str, str], *, stdin: int, output: int | None = None
    ) -> ManagedProcess:
        """Start a command line in a new session, also from a process with threads.

        ``output`` is a descriptor for its stdout and stderr; None inherits this process's. It has no parent-death
        signal, so it must itself notice that the other end of its ``stdin`` is closed. Raises OSError.
        """
        actions = [(os.POSIX_SPAWN_DUP2, stdin, 0)]
        if output is not None:
            actions += [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
        return cls(os.posix_spawn(command[0], list(command), dict(environment), file_actions=actions, setsid=True))

    def poll(self) -> int | None:
        """The exit code, negative where a signal killed it; None while it runs.

        When it has ended, processes that it has left behind are killed.
        """
        with self._reaping:
            if self._exit_code is None and self._has_ended():
                self.kill()  # before it is reaped: until then its id, which is that of its group, is not used again
                self._exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._exit_code

    def wait(self, timeout_s: float) -> int | None:
        """Poll for up to ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        while (exit_code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return exit_code

    def send_signal(self, number: int) -> None:
        """Send a signal only to this process; SIGKILL also goes to everything it started."""
        if number == signal.SIGKILL:
            self.kill()
        elif self._exit_code is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and everything it started, without waiting. It takes no lock, so a signal handler may call it."""
        if self._exit_code is None:
            kill_group(self.pid)

    def _has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_group(pid: int) -> None:
    """Kill the process group that ``pid`` leads, if there is one."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def describe_exit(exit_code: int | None) -> str:
    """``ended with code 1``, ``was killed by SIGKILL``."""
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with code {exit_code}"


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Make the kernel send this process the signal when the thread that started it ends. Does nothing except on Linux.

    A parent that has ended before the call is not noticed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _live(body: Callable[[], int], parent: int, parent_death_signal: int, mask: set[int | signal.Signals]) -> NoReturn:
    """The body of a forked process. It never returns into its parent's code."""
    code = EXIT_CRASHED
    try:
        os.setpgid(0, 0)
        for number in (*HANDLED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        end_with_parent(parent_death_signal)
        if os.getppid() == parent:  # else it has ended already
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = body()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else EXIT_CRASHED
    except BaseException:  # noqa: BLE001  whatever it is, it ends here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
