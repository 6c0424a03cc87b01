"""The supervisor: a single-threaded process that has imported everything, forks a worker for each system, and restarts
processes that exit. Workers with models share one fork server, so that torch is imported once for all of them.

It runs as ``python -m ratchet.processes.supervisor`` with its channel as standard input (see SupervisorClient). When
the channel closes it stops everything, so that nothing outlives the process that started it. It does not know what a
worker does.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ratchet.backoff import Backoff, RestartDelay
from ratchet.processes.child_runner import with_threads
from ratchet.processes.managed_process import ManagedProcess
from ratchet.processes.messages import (
    AddRunner,
    Channel,
    Configure,
    ListProcesses,
    ProcessList,
    ProcessState,
    RequestRefused,
    ServerGone,
    ServerProcess,
    StartCommand,
    StartWorker,
    StopProcess,
    SupervisorReply,
    SupervisorRequest,
    decode,
    encode,
)
from ratchet.settings import Settings
from ratchet.settings.settings import from_values
from ratchet.systems import registry
from ratchet.worker.main import run_worker
from ratchet.worker.stopping import stop_deadline

TICK_S = 0.1
FIRST_PAUSE_S = 0.2
STOP_MARGIN_S = 4.0
STATUS_READ_S = 0.5
"""How often the status files of stopping workers are read."""
KILLED_S = 3.0
"""How long the kernel may take to end killed processes; with the margin it is less than the client's wait."""

Start = Callable[[], ManagedProcess]


class SupervisedProcess:
    """A process that is restarted when it exits, after pauses that double up to ``last_pause_s``."""

    def __init__(self, start: Start, last_pause_s: float = 30.0) -> None:
        self._start = start
        self._delay = RestartDelay(Backoff(FIRST_PAUSE_S, last_pause_s))
        self.process: ManagedProcess | None = None
        self.restarts = 0
        self.exit_code: int | None = None
        self.is_wanted = True

    @property
    def state(self) -> ProcessState:
        return ProcessState(self.process.pid if self.process else None, self.restarts, self.exit_code)

    def check(self, now: float) -> None:
        """Reap it if it has exited, and restart it when its pause is over. ``now`` is monotonic."""
        if self.process is not None and (exit_code := self.process.poll()) is not None:
            self.process, self.exit_code = None, exit_code
            self._delay.died(now)
            self.restarts += self.is_wanted
        if self.process is None and self.is_wanted and self._delay.is_over(now):
            self._try_to_start(now)

    def stop(self) -> None:
        """Ask it to stop, and do not restart it."""
        self.is_wanted = False
        if self.process is not None:
            self.process.terminate()

    def start_again(self, start: Start) -> None:
        """Start it once more after the end for which it was stopped."""
        self._start, self.is_wanted = start, True

    def _try_to_start(self, now: float) -> None:
        try:
            self.process = self._start()
        except OSError:  # no memory, or too many processes: that may pass
            traceback.print_exc()
            self._delay.died(now)
        else:
            self._delay.started(now)


class Supervisor:
    """Keeps processes running until it is stopped."""

    def __init__(self, settings: Settings, channel: Channel) -> None:
        self._settings, self._channel = settings, channel
        self._processes: dict[str, SupervisedProcess] = {}
        self._fork_server: ServerProcess | None = None

    def handle(self, request: SupervisorRequest) -> SupervisorReply:
        """Carry out one request. Returns the list of processes, or why the request was refused."""
        match request:
            case StartWorker(name, system):
                self._add(name, partial(self._fork_worker, system))
            case StartCommand(name, command, environment, log):
                self._add(name, partial(ManagedProcess.execute, command, environment, Path(log)))
            case StopProcess(name):
                if name not in self._processes:
                    return RequestRefused(f"no process {name!r}; there are: {', '.join(self._processes)}.")
                self._processes[name].stop()
            case ListProcesses():
                self.check()  # a process that has just exited is not listed as running
        return ProcessList({name: process.state for name, process in self._processes.items()})

    def check(self) -> None:
        now = time.monotonic()
        for process in self._processes.values():
            process.check(now)

    def stop(self) -> None:
        """Stop all processes: SIGTERM first, and SIGKILL after the workers' grace period or the time that they report
        to need."""
        for process in self._processes.values():
            process.stop()
        self._wait_for_all(self._settings.control.grace_s + STOP_MARGIN_S, extend=True)
        for running in self._running():
            running.kill()
        self._wait_for_all(KILLED_S)
        if self._fork_server is not None:
            self._fork_server.close(KILLED_S)

    def _wait_for_all(self, limit_s: float, *, extend: bool = False) -> None:
        """Reap until no process runs, so that none is orphaned.

        With ``extend`` it waits as long as the workers' status files ask for.
        """
        ends_at, read_at = time.time() + limit_s, time.time()
        while (running := self._running()) and time.time() < ends_at:
            if extend and time.time() >= read_at:
                pids = {process.pid for process in running}
                ends_at = max(ends_at, stop_deadline(self._settings.status_folder, pids) + STOP_MARGIN_S)
                read_at = time.time() + STATUS_READ_S
            time.sleep(0.02)
            self.check()

    def _running(self) -> list[ManagedProcess]:
        return [each.process for each in self._processes.values() if each.process is not None]

    def _add(self, name: str, start: Start) -> None:
        present = self._processes.get(name)
        if present is None or present.process is None:
            self._processes[name] = SupervisedProcess(start, self._settings.control.max_backoff_s)
            self._processes[name].check(time.monotonic())
        elif not present.is_wanted:
            present.start_again(start)

    def _fork_worker(self, system: str) -> ManagedProcess:
        runner = self._join_fork_server(system)
        try:
            return ManagedProcess.fork(partial(self._run_worker, system, runner))
        finally:
            if runner is not None:
                runner.close()

    def _run_worker(self, system: str, runner: Channel | None) -> int:
        self._channel.close()  # else the client would not notice this process's end while a worker runs
        if self._fork_server is not None:
            self._fork_server.leave()
        return run_worker(system, self._settings, self._settings.log_folder, fork_server=runner)

    def _join_fork_server(self, system: str) -> Channel | None:
        """The channel for a further runner of the shared fork server, which is started if it is not there; None for a
        system without models, or if no server can be started."""
        found, preload = registry.systems().get(system), shared_preload(self._settings)
        if found is None or not found.preload:
            return None
        if self._fork_server is not None and self._fork_server.has_ended():
            self._fork_server.close(0.0)
            self._fork_server = None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                if self._fork_server is None:
                    environment = {**os.environ, **with_threads(self._settings.placement.threads)}
                    self._fork_server = ServerProcess(
                        "ratchet.processes.fork_server", *preload, environment=environment
                    )
                self._fork_server.send(AddRunner(), [theirs.fileno()])
            except (OSError, ServerGone):  # the worker starts one of its own, and reports what is wrong
                traceback.print_exc()
                ours.close()
                return None
        return Channel(ours)


def shared_preload(settings: Settings) -> tuple[str, ...]:
    """The modules of all systems of this machine, each once, in the order in which the systems name them."""
    systems = [system for system in registry.systems().values() if system.host in settings.placement.roles]
    return tuple(dict.fromkeys(module for system in systems for module in system.preload))


def main() -> int:
    """Read the settings, then serve until the channel closes or SIGTERM comes."""
    channel, stop = Channel.from_stdin(), list[bool]()
    first = channel.receive_one()
    if first is None:
        return 0
    configure: Configure = decode(first)
    settings = from_values(configure.settings)
    registry.systems()
    gc.freeze()
    supervisor = Supervisor(settings, channel)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.append(True))
    while not stop and not channel.closed:
        for request in channel.receive(TICK_S):
            reply = supervisor.handle(decode(request))
            with contextlib.suppress(ConnectionError):  # the next receive finds the channel closed
                channel.send(encode(reply))
        supervisor.check()
    supervisor.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
