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
from ratchet.watchdog import Watchdog, WatchedThread

if TYPE_CHECKING:
    from ratchet.inference.batch_decoder import ContinuousBatch
    from ratchet.inference.local import LocalGenerator

log = logging.getLogger(__name__)

BATCH_WAIT_S = 0.002
"""How long an idle server waits after a first request for more to share its batch: the spread of a burst of clients."""

STALLED_AFTER = 3
"""Time limits of a request. A long prompt on a slow machine may well outlast its own, which is no reason to restart."""

STALL_S = 600.0
"""No step counts as a standstill before that, however short the time limit of a request is."""


class Batcher:
    """One thread that answers the tickets of one loaded checkpoint, first come, first served.

    It ends when it is closed and everything is answered. ``limit_s`` is how long a request may take; a single step that
    takes longer than ``stall_s`` stands still, which is many times as long by default.
    """

    def __init__(
        self,
        checkpoint_id: str,
        generator: LocalGenerator,
        *,
        max_batch: int,
        max_queue: int,
        limit_s: float,
        watchdog: Watchdog,
        wait_s: float = BATCH_WAIT_S,
        stall_s: float | None = None,
    ):
        self._checkpoint_id = checkpoint_id
        self._generator = generator
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._max_queue = max_queue
        self._tickets: deque[Ticket] = deque()
        self._answering: list[Ticket] = []
        self._change = threading.Condition()
        self._closing = threading.Event()
        self._has_given_up = False
        if stall_s is None:
            stall_s = max(STALL_S, STALLED_AFTER * limit_s)
        name = f"batcher-{checkpoint_id}"
        self._thread = WatchedThread(self._run, watchdog, self._closing, name=name, limit_s=stall_s)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._tickets)

    @property
    def under_way(self) -> int:
        return len(self._answering)

    def submit(self, ticket: Ticket) -> None:
        """Queue a ticket. Raises Retired after ``close``; a 503 Refusal with a full queue, or without the thread."""
        with self._change:
            if self._closing.is_set():
                raise Retired(self._checkpoint_id)
            if self._has_given_up:
                raise _ended()
            if len(self._tickets) >= self._max_queue:
                self._drop_over()  # the thread does so between two steps, which may be long ones
            if len(self._tickets) >= self._max_queue:
                raise Refusal(503, "overloaded", f"{self._max_queue} requests are waiting (serving.max_queue).", 1)
            self._tickets.append(ticket)
            self._change.notify()

    def close(self, timeout_s: float) -> bool:
        """Take no more tickets, answer those that are queued, and end the thread; whether it did so in time."""
        with self._change:
            self._closing.set()
            self._change.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            batch = self._generator.continuous_batch(self._max_batch)
            while self._goes_on(batch):
                self._step(batch, self._joining(batch))
        finally:
            self._give_up()

    def _goes_on(self, batch: ContinuousBatch[Ticket]) -> bool:
        """Wait until there is something to do; False once it is closed and everything is answered."""
        with self._change:
            if not self._tickets and not batch.requests and not self._closing.is_set():
                self._thread.watch.rest()
                self._change.wait_for(lambda: self._tickets or self._closing.is_set())
                self._thread.watch.beat()
                self._wait_for_companions()
            return bool(self._tickets or batch.requests or not self._closing.is_set())

    def _joining(self, batch: ContinuousBatch[Ticket]) -> list[Ticket]:
        """The tickets that join now; none where all that wait are over, or do not fit."""
        with self._change:
            self._drop_over()
            fitting = batch.fitting([ticket.prompt for ticket in islice(self._tickets, self._max_batch)])
            return [self._tickets.popleft() for _ in range(fitting)]

    def _step(self, batch: ContinuousBatch[Ticket], joining: list[Ticket]) -> None:
        self._thread.watch.beat()
        self._answering = [*batch.requests, *joining]
        if not self._answering:
            return
        try:
            short = batch.advance(joining)
        except Exception as error:  # whatever it is, those who wait are told, and the thread goes on
            log.exception("a batch of %d requests to %s failed", len(self._answering), self._checkpoint_id)
            batch.clear()
            for ticket in self._answering:
                ticket.fail(error)
        else:
            self._put_back(short)
        self._answering = batch.requests

    def _give_up(self) -> None:
        """At the end of the thread nobody may be left waiting, however it came about."""
        with self._change:
            self._has_given_up = True
            for ticket in (*self._answering, *self._tickets):
                ticket.fail(_ended())
            self._tickets.clear()
            self._answering = []

    def _wait_for_companions(self) -> None:
        ends_at = time.monotonic() + self._wait_s
        while len(self._tickets) < self._max_batch and not self._closing.is_set():
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


def _ended() -> Refusal:
    return Refusal(503, "stalled", "what answers requests has ended; the server starts afresh.", retry_after_s=5)
