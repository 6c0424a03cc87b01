"""One supervised process: forked or executed, watched, and started again with back-off when it dies."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.parent import end_with_parent

FIRST_WAIT_S = 0.2
WELL_AFTER_S = 60.0
"""What has lived for so long has not failed at its start: the back-off begins anew."""
EXIT_CRASHED = 1

Body = Callable[[], int]


@dataclass
class Offspring:
    """A process by name. ``start`` returns its pid; ``wait_s`` is the back-off before the next start, which doubles."""

    name: str
    start: Callable[[], int]
    last_wait_s: float = 30.0
    pid: int | None = None
    started_at: float = 0.0
    restarts: int = 0
    exit_code: int | None = None
    wanted: bool = True
    wait_s: float = field(default=FIRST_WAIT_S)
    due_at: float = 0.0

    def tend(self, now: float) -> None:
        """Notice its death, and start it when that is due. ``now`` is monotonic."""
        if self.pid is not None:
            self._reap(now)
        if self.pid is None and self.wanted and now >= self.due_at:
            self.pid, self.started_at = self.start(), now

    def kill(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.pid is not None:
            os.kill(self.pid, number)

    def _reap(self, now: float) -> None:
        pid, status = os.waitpid(self.pid or 0, os.WNOHANG)
        if pid == 0:
            return
        if now - self.started_at >= WELL_AFTER_S:
            self.wait_s = FIRST_WAIT_S
        self.pid, self.exit_code = None, os.waitstatus_to_exitcode(status)
        self.due_at = now + self.wait_s
        if self.wanted:
            self.restarts += 1
            self.wait_s = min(self.wait_s * 2, self.last_wait_s)


STOPPING = (signal.SIGTERM, signal.SIGINT)
"""Held back while a child still has its parent's handlers, which would swallow them."""


def forked(body: Body) -> Callable[[], int]:
    """A start that forks this process and runs ``body`` in the child, which dies when this process dies."""

    def start() -> int:
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return pid
        code = EXIT_CRASHED
        try:
            _become_child(parent)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = body()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else EXIT_CRASHED
        except BaseException:  # noqa: BLE001 -- the child must never return into its parent's loop
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    return start


def executed(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Callable[[], int]:
    """A start that runs a command line, its output appended to ``log``."""

    def body() -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.execvpe(command[0], list(command), {**os.environ, **environment})

    return forked(body)


def _become_child(parent: int) -> None:
    """Forget the supervisor's signals and its pipes, and ask the kernel to end us with it."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    if os.getppid() != parent:
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
