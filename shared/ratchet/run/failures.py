"""What a run says when a process of it fails: whose it is, and its traceback or its last words. Each is said once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.ledger import Ledger, health
from ratchet.processes.managed_process import describe_exit
from ratchet.processes.messages import ProcessState

AGAIN = "It is started again, with growing pauses."
TAIL_BYTES = 20_000


@dataclass
class Failures:
    """Remembers what has been said: a worker that fails again in the same way is not news.

    Made when the run begins, which is told of no failure before that.
    """

    _began: float = field(default_factory=time.monotonic)
    _said: dict[str, str] = field(default_factory=dict)
    _restarts: dict[str, int] = field(default_factory=dict)

    def new(self, ledger: Ledger, members: Mapping[str, ProcessState], log_folder: Path) -> Iterator[str]:
        """Texts of the failures that are new. Workers tell the ledger why they fail; of other ends there is the log."""
        told = self._told(ledger)
        for name, error in told.items():
            yield from self._unsaid(name, f"{name} has failed. {AGAIN}\n{error}")
        for name, member in members.items():
            if member.restarts > self._restarts.get(name, 0):
                self._restarts[name] = member.restarts
                if not any(worker.startswith(f"{name}@") for worker in told):
                    words = last_words(newest_log(log_folder, name))
                    yield from self._unsaid(name, f"{name} {describe_exit(member.exit_code)}: {words} {AGAIN}")

    def _told(self, ledger: Ledger) -> dict[str, str]:
        """Why workers have failed since the run began, by their names."""
        now = ledger.now()
        began_at = now - (time.monotonic() - self._began)
        with ledger.read() as session:
            failed = [worker for worker in health.failing_workers(session, now) if worker.seen_at >= began_at]
        return {worker.name: (worker.error or "").rstrip() for worker in failed}

    def _unsaid(self, name: str, text: str) -> Iterator[str]:
        if self._said.get(name) != text:
            self._said[name] = text
            yield text


def newest_log(folder: Path, name: str) -> Path | None:
    """The log that a member wrote to last: a command's bears its name, a worker's its whole name."""
    logs = [folder / f"{name}.log", *folder.glob(f"{name}@*.log")]
    return max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None)


def last_words(log: Path | None) -> str:
    """The last line of a log that is not empty; of a line of JSON, as workers write it, the message."""
    if log is None:
        return "it has no log."
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").split("\n") if line.strip()]
    return _message(lines[-1].strip()) if lines else "it said nothing."


def _message(line: str) -> str:
    try:
        return str(json.loads(line)["message"])
    except (ValueError, KeyError, TypeError):
        return line
