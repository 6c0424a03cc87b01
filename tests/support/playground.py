"""What a test does with toys: throw them, wait until they are counted, and look into the ledger."""

from __future__ import annotations

import os
import signal
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from ratchet.ledger.tables import ClaimRow, DeadLetterRow, VerdictRow
from sqlalchemy import select

from tests.support.failpoints import arm
from tests.support.toys import catching
from tests.support.workers import Stack, wait_until

ROOT = Path(__file__).parents[2]
"""The folder that ``tests`` is imported from, for worker processes."""


@dataclass
class Playground:
    """Toys thrown into a running stack."""

    stack: Stack

    def throw(self, *toys: str) -> None:
        for toy in toys:
            catching.throw(self.stack.ledger, toy)

    def wait_counted(self, *toys: str) -> None:
        """Wait until each toy has gone through both systems; then check that everything happened once."""
        wanted = {(system, toy) for system in ("catching", "counting") for toy in toys}
        wait_until(lambda: wanted <= set(self.verdicts()), what=f"verdicts of both systems on {', '.join(toys)}")
        self.check_once(*toys)

    def check_once(self, *toys: str) -> None:
        tally = Tally(self.verdicts())
        for toy in toys:
            assert tally["catching", toy] == tally["counting", toy] == 1
            assert self.catches(toy) == 1
            assert self.letters(toy) == []

    def verdicts(self) -> list[tuple[str, str]]:
        with self.stack.ledger.read() as session:
            return [(row.system, row.subject_id) for row in session.scalars(select(VerdictRow))]

    def verdict_worker(self, toy: str) -> str:
        with self.stack.ledger.read() as session:
            return session.scalars(
                select(VerdictRow.worker).where(VerdictRow.system == "catching", VerdictRow.subject_id == toy)
            ).one()

    def claims(self) -> list[ClaimRow]:
        with self.stack.ledger.read() as session:
            return list(session.scalars(select(ClaimRow)))

    def letters(self, toy: str) -> list[DeadLetterRow]:
        with self.stack.ledger.read() as session:
            return list(session.scalars(select(DeadLetterRow).where(DeadLetterRow.subject_id == toy)))

    def unread(self) -> list[DeadLetterRow]:
        """Dead letters of events that could not be read."""
        with self.stack.ledger.read() as session:
            return list(session.scalars(select(DeadLetterRow).where(DeadLetterRow.subject_kind == "event")))

    def catches(self, toy: str) -> int:
        with self.stack.ledger.read() as session:
            return catching.catches(session, toy)

    def arm(self, point: str) -> None:
        arm(self.stack.failpoints, point)

    def armed(self, point: str) -> bool:
        return (self.stack.failpoints / point).exists()

    def restarts(self, name: str = "catching") -> int:
        return self.stack.supervisor.processes()[name].restarts

    def all_restarts(self) -> int:
        return sum(member.restarts for member in self.stack.supervisor.processes().values())

    def pid(self, name: str = "catching") -> int:
        """The worker's process id, waiting for a restart that is under way."""
        seen: list[int | None] = []

        def is_running() -> bool:
            seen.append(self.stack.supervisor.processes()[name].pid)
            return seen[-1] is not None

        wait_until(is_running, what=f"a running {name}")
        pid = seen[-1]
        assert pid is not None
        return pid

    def signal(self, number: signal.Signals, name: str = "catching") -> None:
        os.kill(self.pid(name), number)

    def kill_child(self) -> None:
        """Kill the child process that plays, which is a grandchild: the fork server's."""
        worker = psutil.Process(self.pid())
        wait_until(lambda: len(worker.children(recursive=True)) > 1, what="a playing child")
        worker.children(recursive=True)[-1].kill()

    def wait_working(self, toy: str) -> None:
        wait_until(
            lambda: any(claim.subject_id == toy and claim.owner and claim.progress for claim in self.claims()),
            what=f"progress on {toy}",
        )


Open = Callable[..., Playground]
"""Opens a playground of its own: with these systems, ``ledger_url``, and control settings by name."""
