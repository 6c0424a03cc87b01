"""One run of `ratchet run`: start everything, show it, count cycles, stop, and summarize.

It decides when a run ends: after a number of cycles, on request, or when continuing is pointless. It does not know how
processes are started or how the run is displayed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed, TransientError
from ratchet.ledger import Ledger, health
from ratchet.ledger.tables import ClaimRow, EvaluationRow, LineageRow, OutboxRow, VerdictRow
from ratchet.processes.managed_process import describe_exit
from ratchet.processes.messages import ProcessState
from ratchet.run import run_lock
from ratchet.run.local_stack import PAGE, LocalStack
from ratchet.run.summary import Summary, completed_cycles, has_undecided, summarize
from ratchet.settings import Settings
from ratchet.user_tasks.supply import are_all_used_up
from ratchet.user_tasks.task import all_tasks

CHECK_S = 0.5
MAX_RESTARTS = 10
"""A process that was restarted this often has a fault that another restart will not fix."""
STALL_S = 600.0
"""A run with a fixed number of cycles gives up after this long without progress."""
EXIT_INTERRUPTED = 130
RESTART_NOTE = "It is restarted, with growing pauses."
TAIL_BYTES = 20_000


class View(Protocol):
    """A display of a run."""

    def announce(self, text: str) -> None:
        """Show a message of the run itself."""
        ...

    def show(self, ledger: Ledger, heading: str, endpoint: str, page: str) -> None:
        """Show the current state, and where the model and the page are."""
        ...


@dataclass(frozen=True)
class RunResult:
    """How a run ended. ``problem`` is None if it reached its goal or was asked to stop; ``used_up`` says that it ended
    before its cycles, because all data has been used and decided on."""

    summary: Summary
    endpoint: str
    problem: str | None = None
    used_up: str | None = None


class Run:
    """One run of a home. ``cycles`` is the number after which it ends; None runs until stopped."""

    def __init__(
        self, settings: Settings, view: View, cycles: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._view, self._cycles, self._clock = settings, view, cycles, clock
        self._stall_detector = StallDetector()
        self._failures = FailureReporter()

    def run(self) -> RunResult:
        """Return when the cycles are done, when asked to stop, or with the problem that makes continuing pointless.

        Raises PreconditionFailed while another run holds the home, and TransientError for a busy port.
        """
        began_at = self._clock()
        with run_lock.hold_home(self._settings.home.resolve()), StopSignals(self._view.announce) as signals:
            with LocalStack(self._settings, self._view.announce) as stack:
                self._require_data(stack)
                signals.hurry, signals.kill = stack.hurry, stack.kill
                done_before = _completed(stack.ledger)
                problem = self._watch(stack, signals.stop, done_before, began_at)
                endpoint, used_up = stack.endpoint(), self._used_up(stack) if problem is None else None
                self._view.announce("stopping")
            return RunResult(self._summary(began_at, done_before), endpoint, problem, used_up)

    def _watch(
        self, stack: LocalStack, stop: threading.Event, done_before: frozenset[str], began_at: float
    ) -> str | None:
        """Show the run until it ends; returns the problem, if any. A ledger that is away is waited for, as the workers
        wait for it: PostgreSQL may be restarted below a run."""
        is_away = False
        while not stop.is_set():
            try:
                has_ended, problem = self._look(stack, done_before, began_at)
            except TransientError as error:
                if not is_away:
                    self._view.announce(f"{error} The run goes on, and waits for it.")
                is_away = True
            else:
                is_away = False
                if has_ended:
                    return problem
            stop.wait(CHECK_S)
        return None

    def _look(self, stack: LocalStack, done_before: frozenset[str], began_at: float) -> tuple[bool, str | None]:
        """Show the state once; returns whether the run has ended, and with which problem."""
        processes = stack.check()
        for text in self._failures.new(stack.ledger, processes, self._settings.log_folder):
            self._view.announce(text)
        failing = _failing(processes)
        done = len(_completed(stack.ledger) - done_before)
        self._view.show(stack.ledger, self._heading(done, began_at, failing), stack.endpoint(), stack.page)
        if self._cycles is None:
            return False, None
        if done >= self._cycles:
            return True, None
        problem = self._problem(stack, _failing(_needed(processes)))
        return problem is not None or self._used_up(stack) is not None, problem

    def _heading(self, done: int, began_at: float, failing: str | None) -> str:
        minutes, seconds = divmod(int(self._clock() - began_at), 60)
        counted = f"{done} of {self._cycles} cycles" if self._cycles else f"{done} cycles"
        return f"{failing or ''}  {counted}  {minutes}:{seconds:02}".strip()

    def _problem(self, stack: LocalStack, failing: str | None) -> str | None:
        """Why a run with a fixed number of cycles should give up; any other run waits until the problem is fixed."""
        if failing is not None:
            return f"{failing}; see {self._settings.log_folder}, or `ratchet logs`"
        with stack.ledger.read() as session:
            idle_s = self._stall_detector.idle_s(session)
        if idle_s > STALL_S:
            return f"nothing has moved for {idle_s:.0f} s; `ratchet logs` and `ratchet dead list` may say why"
        return None

    def _require_data(self, stack: LocalStack) -> None:
        """Say that there is nothing to train on. Raises PreconditionFailed if cycles were asked for."""
        with stack.ledger.read() as session:
            has_data = bool(self._settings.suites.families or all_tasks(session, "user"))
        inbox = self._settings.inbox
        if has_data or (inbox.is_dir() and any(inbox.iterdir())):
            return
        way_out = f"`ratchet data add FILE` adds rows of your own; files in {inbox} are taken, too."
        if self._cycles is not None:
            raise PreconditionFailed(f"there is nothing to train on. {way_out}")
        self._view.announce(f"there is nothing to train on yet. {way_out}")

    def _used_up(self, stack: LocalStack) -> str | None:
        """Why a run with a fixed number of cycles ends early: nothing is left to train on or to decide."""
        if self._cycles is None:
            return None
        with stack.ledger.read() as session:
            if not are_all_used_up(session, self._settings) or has_undecided(session):
                return None
            return " ".join(f"{task.name}: {task.reason}" for task in all_tasks(session, "user"))

    def _summary(self, began_at: float, done_before: frozenset[str]) -> Summary:
        ledger = Ledger(self._settings.ledger_url)
        try:
            with ledger.read() as session:
                return summarize(session, began_at, self._clock(), done_before)
        finally:
            ledger.close()


class StopSignals:
    """Handles SIGINT, SIGTERM and SIGHUP in a block: the first sets ``stop`` and calls ``hurry``, the second calls
    ``kill`` and exits.

    SIGHUP comes when the terminal is closed; with `nohup` it stays ignored. For the main thread.
    """

    def __init__(self, announce: Callable[[str], None]):
        self.stop = threading.Event()
        self.hurry: Callable[[], None] = lambda: None
        self.kill: Callable[[], None] = lambda: None
        self._announce = announce
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _leave_closed_terminal()
        if self.stop.is_set():
            self.kill()
            os._exit(EXIT_INTERRUPTED)
        self.stop.set()
        self.hurry()
        self._announce("stopping; running work is saved or released (Ctrl-C again kills it)")


def _leave_closed_terminal() -> None:
    """Let standard streams lead nowhere that led to a terminal which is gone: writing to it would be an error."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        try:
            os.ttyname(stream.fileno())
        except OSError as error:
            if error.errno == errno.EIO:  # elsewhere it is no terminal
                with open(os.devnull, "r+b", buffering=0) as nowhere:
                    os.dup2(nowhere.fileno(), stream.fileno())


class StallDetector:
    """Remembers when the ledger last changed by work: verdicts, events, claims or evaluations."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[int, ...] | None = None
        self._changed_at = clock()

    def idle_s(self, session: Session) -> float:
        """Seconds without a change, counted between calls. Time in which training is paused does not count."""
        is_paused = session.scalar(select(LineageRow.paused).limit(1))
        seen = (
            session.scalar(select(func.max(VerdictRow.id))) or 0,
            session.scalar(select(func.max(OutboxRow.seq))) or 0,
            session.scalar(select(func.sum(ClaimRow.token + ClaimRow.progress))) or 0,
            session.scalar(select(func.count()).select_from(EvaluationRow)) or 0,
        )
        if seen != self._seen or is_paused:
            self._seen, self._changed_at = seen, self._clock()
        return self._clock() - self._changed_at


class FailureReporter:
    """Reports each failure of a process once. Failures from before its creation, at the start of the run, are
    ignored."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()
        self._reported: dict[str, str] = {}
        self._restarts: dict[str, int] = {}

    def new(self, ledger: Ledger, processes: Mapping[str, ProcessState], log_folder: Path) -> Iterator[str]:
        """Messages for the new failures.

        A worker that could write to the ledger has left its traceback there; otherwise there is only the log.
        """
        recorded = self._recorded(ledger)
        for name, error in recorded.items():
            yield from self._unreported(name, f"{name} has failed. {RESTART_NOTE}\n{error}")
        for name, process in processes.items():
            if process.restarts > self._restarts.get(name, 0):
                self._restarts[name] = process.restarts
                if not any(worker.startswith(f"{name}@") for worker in recorded):
                    end, line = describe_exit(process.exit_code), last_line(newest_log(log_folder, name))
                    yield from self._unreported(name, f"{name} {end}: {line} {RESTART_NOTE}")

    def _recorded(self, ledger: Ledger) -> dict[str, str]:
        """Errors of workers that have failed since the run began, by name."""
        now = ledger.now()
        began_at = now - (time.monotonic() - self._began_at)
        with ledger.read() as session:
            failed = [worker for worker in health.failing_workers(session, now) if worker.seen_at >= began_at]
        return {worker.name: (worker.error or "").rstrip() for worker in failed}

    def _unreported(self, name: str, text: str) -> Iterator[str]:
        if self._reported.get(name) != text:
            self._reported[name] = text
            yield text


def newest_log(folder: Path, name: str) -> Path | None:
    """The log that a process wrote to last. A command's log has its name, a worker's its name with host and slot."""
    logs = [folder / f"{name}.log", *folder.glob(f"{name}@*.log")]
    return max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None)


def last_line(log: Path | None) -> str:
    """The last non-empty line of a log, or the message in it if it is one of the workers' JSON lines."""
    if log is None:
        return "it has no log."
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").split("\n") if line.strip()]
    return _message(lines[-1].strip()) if lines else "its log is empty."


def _message(line: str) -> str:
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line


def _completed(ledger: Ledger) -> frozenset[str]:
    with ledger.read() as session:
        return frozenset(cycle.checkpoint_id for cycle in completed_cycles(session))


def _needed(processes: Mapping[str, ProcessState]) -> dict[str, ProcessState]:
    """The processes without which no checkpoint is trained, judged or served."""
    return {name: process for name, process in processes.items() if name != PAGE}


def _failing(processes: Mapping[str, ProcessState]) -> str | None:
    for name, process in processes.items():
        if process.restarts >= MAX_RESTARTS:
            return f"{name} has exited {process.restarts} times, last with code {process.exit_code}"
    return None
