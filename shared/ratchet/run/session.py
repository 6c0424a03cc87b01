"""One run from start to end: start everything, show it, count cycles, stop, sum up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ratchet.ledger import Ledger
from ratchet.processes.messages import ProcessState
from ratchet.run import lock
from ratchet.run.cycles import decided
from ratchet.run.failures import Failures
from ratchet.run.local_stack import LocalStack
from ratchet.run.movement import STALL_S, Movement
from ratchet.run.stopping import Stop
from ratchet.run.summary import Summary, summarize
from ratchet.settings import Settings

EVERY_S = 0.5
MOST_RESTARTS = 10
"""A process that had to be started again so often has something that a further start will not heal."""


class View(Protocol):
    """Where a run is shown."""

    def say(self, text: str) -> None:
        """A line of the run's own."""
        ...

    def show(self, ledger: Ledger, heading: str, endpoint: str) -> None:
        """What is going on now."""
        ...


@dataclass(frozen=True)
class Ended:
    """How a run ended. ``problem`` is None where it reached its goal or was asked to stop."""

    summary: Summary
    endpoint: str
    problem: str | None = None


@dataclass
class Session:
    """One run of a home. ``cycles`` is the number after which it ends by itself; None runs until stopped."""

    settings: Settings
    view: View
    cycles: int | None = None
    clock: Callable[[], float] = time.time
    _movement: Movement = field(default_factory=Movement)
    _failures: Failures = field(default_factory=Failures)

    def run(self) -> Ended:
        """Returns when the cycles are done, when asked to stop, or with the problem that makes going on useless.

        Raises PreconditionFailed while another run holds the home, and TransientError for a busy port.
        """
        began_at = self.clock()
        with lock.held(self.settings.home.resolve()), Stop(self.view.say) as stop:
            with LocalStack(self.settings, self.view.say) as parts:
                stop.insist = parts.kill
                done_before = self._done(parts.ledger)
                problem = self._watch(parts, stop, done_before, began_at)
                endpoint = parts.endpoint()
                self.view.say("stopping")
            return Ended(self._summary(began_at, done_before), endpoint, problem)

    def _watch(self, parts: LocalStack, stop: Stop, done_before: frozenset[str], began_at: float) -> str | None:
        while not stop.event.is_set():
            found = parts.check()
            for text in self._failures.new(parts.ledger, found, self.settings.log_folder):
                self.view.say(text)
            dying = _dying(found)
            done = len(self._done(parts.ledger) - done_before)
            self.view.show(parts.ledger, self._heading(done, began_at, dying), parts.endpoint())
            if self.cycles is not None and done >= self.cycles:
                return None
            problem = self._problem(parts, dying) if self.cycles is not None else None
            if problem is not None:
                return problem
            stop.event.wait(EVERY_S)
        return None

    def _heading(self, done: int, began_at: float, dying: str | None) -> str:
        minutes, seconds = divmod(int(self.clock() - began_at), 60)
        counted = f"{done} of {self.cycles} cycles" if self.cycles else f"{done} cycles"
        return f"{dying or ''}  {counted}  {minutes}:{seconds:02}".strip()

    def _problem(self, parts: LocalStack, dying: str | None) -> str | None:
        """Why a run that counts should give up; one without an end waits for better times."""
        if dying is not None:
            return f"{dying}; see {self.settings.log_folder}, or `ratchet logs`"
        with parts.ledger.read() as session:
            still_s = self._movement.look(session)
        if still_s > STALL_S:
            return f"nothing has moved for {still_s:.0f} s; `ratchet logs` and `ratchet dead` may say why"
        return None

    @staticmethod
    def _done(ledger: Ledger) -> frozenset[str]:
        with ledger.read() as session:
            return frozenset(d.checkpoint_id for d in decided(session))

    def _summary(self, began_at: float, done_before: frozenset[str]) -> Summary:
        ledger = Ledger(self.settings.ledger_url)
        try:
            with ledger.read() as session:
                return summarize(session, began_at, self.clock(), done_before)
        finally:
            ledger.close()


def _dying(members: dict[str, ProcessState]) -> str | None:
    for name, member in members.items():
        if member.restarts >= MOST_RESTARTS:
            return f"{name} has died {member.restarts} times, the last exit code was {member.exit_code}"
    return None
