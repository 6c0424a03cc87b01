"""One client request on its way through a batch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ratchet.inference.generator import Generation
from ratchet.serving.refusal import ClientGone, TimedOut

if TYPE_CHECKING:
    from ratchet.inference.sampling import Answer, Prompt

Growth = Callable[["Answer"], None]
"""Called in the batch's thread after every token of an answer."""


class Ticket:
    """A prompt that waits for its answer in ``future``; the first outcome stays."""

    def __init__(self, prompt: Prompt, timeout_s: float, on_growth: Growth | None = None):
        self.prompt = prompt
        self.future: Future[Generation] = Future()
        self._on_growth = on_growth
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._cancelled = False

    @property
    def over(self) -> bool:
        """Whether nobody waits for the answer any longer."""
        return self._cancelled or self.future.done() or time.monotonic() > self._ends_at

    @property
    def left_s(self) -> float:
        """How long it may still take."""
        return max(0.0, self._ends_at - time.monotonic())

    @property
    def listens(self) -> bool:
        """Whether somebody wants to be told of every token."""
        return self._on_growth is not None

    def cancel(self) -> None:
        """Nobody waits any longer. An answer that is there already stays."""
        self._cancelled = True
        self.fail(ClientGone())

    def grew(self, answer: Answer) -> bool:
        """Tell of a new token; True where the row may end. Whose event loop is closed ends no other row."""
        if self.over:
            return True
        if self._on_growth:
            try:
                self._on_growth(answer)
            except RuntimeError as error:
                self.fail(error)
                return True
        return False

    def settle(self, generation: Generation) -> None:
        if self.over:
            self.expire()
        else:
            with suppress(InvalidStateError):
                self.future.set_result(generation)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def expire(self) -> None:
        self.fail(TimedOut(self._timeout_s))


@contextmanager
def expiring(ticket: Ticket) -> Iterator[None]:
    """The event loop ends the wait for a ticket in time, whatever becomes of the thread that should answer it."""
    timer = asyncio.get_running_loop().call_later(ticket.left_s, ticket.expire)
    try:
        yield
    finally:
        timer.cancel()
