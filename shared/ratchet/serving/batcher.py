"""Micro-batching: requests that wait at the same time are answered in one batch."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ratchet.inference.generator import Generation
from ratchet.serving.refusal import Refusal, Retired
from ratchet.serving.ticket import Ticket

if TYPE_CHECKING:
    from ratchet.inference.decode import Answer
    from ratchet.inference.local import LocalGenerator

log = logging.getLogger(__name__)


class Batcher:
    """One thread that answers the tickets of one loaded checkpoint, first come, first served."""

    def __init__(self, checkpoint_id: str, generator: LocalGenerator, *, max_batch: int, wait_s: float, max_queue: int):
        self._checkpoint_id = checkpoint_id
        self._generator = generator
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._max_queue = max_queue
        self._tickets: deque[Ticket] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"batcher-{checkpoint_id}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._tickets)

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket. Raises Retired after ``close``, and a 503 Refusal where the queue is full."""
        with self._change:
            if self._closing:
                raise Retired(self._checkpoint_id)
            if len(self._tickets) >= self._max_queue:
                raise Refusal(503, "overloaded", f"{self._max_queue} requests are waiting (serving.max_queue).", 1)
            self._tickets.append(ticket)
            self._change.notify()

    def close(self) -> None:
        """Take no more tickets, answer those that are queued, and end the thread."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._answer([ticket for ticket in batch if not self._is_over(ticket)])

    def _next_batch(self) -> list[Ticket]:
        """The next tickets, at least one; none once closed and empty."""
        with self._change:
            if not self._tickets and not self._closing:
                self._change.wait_for(lambda: self._tickets or self._closing)
                self._wait_for_companions()
            return [self._tickets.popleft() for _ in range(min(self._max_batch, len(self._tickets)))]

    def _wait_for_companions(self) -> None:
        ends_at = time.monotonic() + self._wait_s
        while len(self._tickets) < self._max_batch and not self._closing:
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or not self._change.wait(left_s):
                return

    def _answer(self, tickets: Sequence[Ticket]) -> None:
        prompts = [ticket.prompt for ticket in tickets]
        for rows in self._generator.plan(prompts):
            part = [tickets[row] for row in rows]
            try:
                self._generator.answer([ticket.prompt for ticket in part], _Tickets(part))
            except Exception as error:
                log.exception("a batch of %d requests to %s failed", len(part), self._checkpoint_id)
                for ticket in part:
                    ticket.fail(error)

    @staticmethod
    def _is_over(ticket: Ticket) -> bool:
        if ticket.over:
            ticket.expire()
        return ticket.over


class _Tickets:
    """Hands tokens and answers to the tickets of a batch as they come."""

    def __init__(self, tickets: Sequence[Ticket]):
        self._tickets = tickets

    def token(self, row: int, answer: Answer) -> bool:
        return self._tickets[row].grew(answer)

    def done(self, row: int, generation: Generation) -> None:
        self._tickets[row].settle(generation)
