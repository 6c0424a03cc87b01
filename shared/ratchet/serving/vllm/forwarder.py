"""Hands the tickets of one checkpoint to vLLM, which batches them itself."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from ratchet.errors import TransientError
from ratchet.serving.refusal import Refusal, Retired
from ratchet.serving.ticket import Ticket
from ratchet.serving.vllm.generator import VllmGenerator
from ratchet.watchdog import Watch, Watchdog

log = logging.getLogger(__name__)

AWAY_S = 5
"""What a client is told to wait while vLLM is away."""


class Forwarder:
    """A Queue. Up to ``max_batch`` requests are in flight; further ones wait, up to ``max_queue``."""

    def __init__(
        self,
        checkpoint_id: str,
        generator: VllmGenerator,
        *,
        max_batch: int,
        wait_s: float,  # noqa: ARG002  (vLLM waits for companions as it sees fit)
        max_queue: int,
        limit_s: float,
        watchdog: Watchdog,
    ):
        self._checkpoint_id = checkpoint_id
        self._generator = generator
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._pool = ThreadPoolExecutor(max_batch, f"vllm-{checkpoint_id}")
        self._change = threading.Condition()
        self._accepted = 0
        self._closing = False
        self._watchdog = watchdog
        # A request to vLLM is given up after limit_s by itself: only where that fails too does nothing go on.
        self._watch = Watch(f"the queue of {checkpoint_id} to vLLM", 2 * limit_s)
        self._watch.rest()
        watchdog.add(self._watch)

    @property
    def waiting(self) -> int:
        return max(0, self._accepted - self._max_batch)

    @property
    def under_way(self) -> int:
        return min(self._accepted, self._max_batch)

    def submit(self, ticket: Ticket) -> None:
        with self._change:
            if self._closing:
                raise Retired(self._checkpoint_id)
            if self.waiting >= self._max_queue:
                raise Refusal(503, "overloaded", f"{self._max_queue} requests are waiting (serving.max_queue).", 1)
            if self._accepted == 0:
                self._watch.beat()
            self._accepted += 1
        self._pool.submit(self._answer, ticket)

    def close(self, timeout_s: float) -> bool:
        with self._change:
            self._closing = True
            has_ended = self._change.wait_for(lambda: self._accepted == 0, timeout_s)
        self._pool.shutdown(wait=False)
        if has_ended:
            self._watchdog.remove(self._watch)
        return has_ended

    def _answer(self, ticket: Ticket) -> None:
        try:
            if ticket.over:
                ticket.expire()
            else:
                self._generator.answer(ticket)
        except TransientError as error:
            ticket.fail(Refusal(503, "engine_away", str(error), AWAY_S))
        except Exception as error:  # whatever it is, the one who waits is told, and the thread goes on
            log.exception("a request to %s failed", self._checkpoint_id)
            ticket.fail(error)
        finally:
            with self._change:
                self._accepted -= 1
                self._watch.beat()
                if self._accepted == 0:
                    self._watch.rest()
                    self._change.notify_all()
