"""Continuous batching: a request joins those that are being answered at their next token."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from ratchet.serving.refusal import Refusal, Retired
from ratchet.serving.ticket import Ticket

if TYPE_CHECKING:
    from ratchet.inference.local import LocalGenerator
    from ratchet.inference.rolling import RollingBatch

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
        self._under_way = 0
        self._thread = threading.Thread(target=self._run, name=f"batcher-{checkpoint_id}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._tickets)

    @property
    def under_way(self) -> int:
        return self._under_way

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
        batch = self._generator.rolling(self._max_batch)
        while (joining := self._joining(batch)) or batch.requests:
            answering = [*batch.requests, *joining]
            self._under_way = len(answering)
            try:
                short = batch.advance(joining)
            except Exception as error:  # whatever it is, those who wait are told, and the thread goes on
                log.exception("a batch of %d requests to %s failed", len(answering), self._checkpoint_id)
                batch.clear()
                for ticket in answering:
                    ticket.fail(error)
            else:
                self._put_back(short)
            self._under_way = len(batch.requests)

    def _joining(self, batch: RollingBatch[Ticket]) -> list[Ticket]:
        """The tickets that join now. It waits for one where nothing else is to be done."""
        with self._change:
            if not self._tickets and not self._closing and not batch.requests:
                self._change.wait_for(lambda: self._tickets or self._closing)
                self._wait_for_companions()
            self._drop_over()
            fitting = batch.fitting([ticket.prompt for ticket in islice(self._tickets, self._max_batch)])
            return [self._tickets.popleft() for _ in range(fitting)]

    def _wait_for_companions(self) -> None:
        ends_at = time.monotonic() + self._wait_s
        while len(self._tickets) < self._max_batch and not self._closing:
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or not self._change.wait(left_s):
                return

    def _drop_over(self) -> None:
        """Nobody waits for these any longer."""
        waiting: deque[Ticket] = deque()
        for ticket in self._tickets:
            if ticket.over:
                ticket.expire()
            else:
                waiting.append(ticket)
        self._tickets = waiting

    def _put_back(self, tickets: Sequence[Ticket]) -> None:
        """These begin again, before those that came later."""
        with self._change:
            self._tickets.extendleft(reversed(tickets))
