"""Starts the supervisor, requests processes and their state from it, and stops it with all of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from ratchet.errors import PreconditionFailed, TransientError
from ratchet.processes.managed_process import kill_group
from ratchet.processes.messages import (
    KILLED_S,
    Configure,
    ListProcesses,
    ProcessState,
    RequestRefused,
    ServerGone,
    ServerProcess,
    StartCommand,
    StartWorker,
    StopProcess,
    SupervisorReply,
    SupervisorRequest,
)
from ratchet.settings import Settings
from ratchet.settings.section import reveal
from ratchet.worker.stopping import describe_stopping, stopping_workers

STOP_MARGIN_S = 8.0
CHECK_S = 0.5
REPLY_S = 60.0
"""The supervisor replies at its next tick, but before the first reply it imports the modules of its workers."""
HURRIED_S = 5.0
"""How long a reply may take once everything is to stop."""
SHOWN_AFTER_S = 1.0
"""Shorter stops are not announced."""


class SupervisorClient:
    """A running supervisor. It and everything it started end with ``close`` or with this process.

    ``environment`` is added to this process's own. The supervisor's own output goes to ``logs/supervisor.log``.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str] | None = None, *, reply_s: float = REPLY_S):
        self._settings = settings
        self._reply_s = reply_s
        self._pids: list[int] = []
        self._hurried_at: float | None = None
        settings.log_folder.mkdir(parents=True, exist_ok=True)
        with open(settings.log_folder / "supervisor.log", "ab") as log:
            self._server = ServerProcess(
                "ratchet.processes.supervisor",
                environment={**os.environ, **(environment or {})},
                output=log.fileno(),
            )
        try:
            self._server.send(Configure(reveal(settings)))
        except ServerGone as error:
            gone = self._gone(error)
            self._server.close(0.0)
            raise gone from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._server.process.pid

    def start_worker(self, system: str, name: str | None = None) -> None:
        """Start a worker of the system and keep it running. ``name`` distinguishes several workers of one system."""
        self._ask(StartWorker(name or system, system))

    def start_command(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a command line and keep it running."""
        self._ask(StartCommand(name, list(command), dict(environment or {}), str(log)))

    def stop_process(self, name: str) -> None:
        """Ask one process to stop; it is not restarted. Raises PreconditionFailed for an unknown name."""
        self._ask(StopProcess(name))

    def processes(self) -> dict[str, ProcessState]:
        """All supervised processes by name. Raises TransientError if the supervisor is gone."""
        return self._ask(ListProcesses())

    def kill(self) -> None:
        """Kill the supervisor and the processes of its last reply, without a lock and without waiting."""
        self._server.process.kill()
        for pid in self._pids:
            kill_group(pid)

    def hurry(self) -> None:
        """Everything is to stop soon: a suspended supervisor goes on, and no reply is waited for long.

        It takes no lock, so a signal handler may call it.
        """
        self._hurried_at = time.monotonic()
        self._server.process.send_signal(signal.SIGCONT)

    def close(self, show: Callable[[str], None] = lambda _text: None) -> None:
        """Stop everything and wait for it. ``show`` is called with what is waited for whenever that changes.

        A supervisor that does not end in time is killed, with all that it had started when it last replied.
        """
        self._server.hang_up()
        self.hurry()
        self._wait(show)
        if self._server.process.poll() is None:
            self.kill()
        self._server.close(0.0)

    def _wait(self, show: Callable[[str], None]) -> None:
        """Wait for the supervisor as long as its workers may take, plus a margin."""
        began_at, shown = time.time(), ""
        ends_at = began_at + self._settings.control.grace_s + STOP_MARGIN_S
        while self._server.process.wait(CHECK_S) is None and time.time() < ends_at:
            if workers := stopping_workers(self._settings.status_folder):
                ends_at = max(ends_at, max(worker.until for worker in workers) + STOP_MARGIN_S)
                who = ", ".join(f"{worker.system} {worker.note}" for worker in workers)
                is_news = not shown or any(worker.note for worker in workers)  # the work is done: only the exit is left
                if who != shown and is_news and time.time() - began_at >= SHOWN_AFTER_S:
                    shown = who
                    show(describe_stopping(workers))

    def _ask(self, request: SupervisorRequest) -> dict[str, ProcessState]:
        try:
            reply: SupervisorReply = self._server.ask(request, timeout_s=self._reply_s, give_up=self._is_late)
        except ServerGone as error:
            raise self._gone(error) from error
        if isinstance(reply, RequestRefused):
            raise PreconditionFailed(reply.error)
        self._pids = [state.pid for state in reply.processes.values() if state.pid is not None]
        return reply.processes

    def _is_late(self) -> bool:
        return self._hurried_at is not None and time.monotonic() - self._hurried_at > HURRIED_S

    def _gone(self, error: ServerGone) -> TransientError:
        exit_code = self._server.process.wait(KILLED_S)
        return TransientError(
            f"the supervisor is gone ({error}; exit code {exit_code}); "
            f"see {self._settings.log_folder / 'supervisor.log'}."
        )
