"""What a run says when a process of it fails: whose it is, and its traceback or its last words. Each is said once."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.ledger import Ledger, workers
from ratchet.worker.nursery import Member

AGAIN = "It is started again, with growing pauses."
TAIL_BYTES = 2_000


@dataclass
class Failures:
    """Remembers what has been said: a worker that fails again in the same way is not news."""

    _said: dict[str, str] = field(default_factory=dict)
    _restarts: dict[str, int] = field(default_factory=dict)

    def new(self, ledger: Ledger, members: Mapping[str, Member], log_folder: Path) -> Iterator[str]:
        """Texts of the failures that are new. Workers tell the ledger why they fail; of the others there is the log."""
        yield from self._of_workers(ledger)
        for name, member in members.items():
            if member.restarts > self._restarts.get(name, 0):
                self._restarts[name] = member.restarts
                log = log_folder / f"{name}.log"
                if log.exists():  # a command's; a worker's bears its whole name
                    yield from self._unsaid(name, f"{name} {how_it_ended(member.exit_code)}: {last_words(log)} {AGAIN}")

    def _of_workers(self, ledger: Ledger) -> Iterator[str]:
        now = ledger.now()
        with ledger.read() as session:
            failed = {worker.name: (worker.error or "").rstrip() for worker in workers.failing(session, now)}
        for name, error in failed.items():
            yield from self._unsaid(name, f"{name} has failed. {AGAIN}\n{error}")

    def _unsaid(self, name: str, text: str) -> Iterator[str]:
        if self._said.get(name) != text:
            self._said[name] = text
            yield text


def how_it_ended(exit_code: int | None) -> str:
    """``ended with code 1``, ``was killed by SIGKILL``."""
    if exit_code is not None and exit_code < 0:
        return f"was killed by {signal.Signals(-exit_code).name}"
    return f"ended with code {exit_code}"


def last_words(log: Path) -> str:
    """The last line of a log that is not empty."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = [line for line in file.read().decode(errors="replace").split("\n") if line.strip()]
    return lines[-1].strip() if lines else "it said nothing."
