"""Continuous batching of requests to the embedded model, with one thread per checkpoint.

A request joins those in flight between two decoding steps. Texts to score, which need no decoding, take a pass of their
own between them. One request is a PendingRequest or a PendingScore.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from ratchet.serving.http_errors import ApiError, BeingUnloaded
from ratchet.serving.pending import PendingRequest, PendingScore
from ratchet.watchdog import Watchdog, WatchedThread

if TYPE_CHECKING:
    from ratchet.inference.batch_decoder import ContinuousBatch
    from ratchet.inference.local_generator import LocalGenerator

log = logging.getLogger(__name__)

Kind = TypeVar("Kind", PendingRequest, PendingScore)

BATCH_WAIT_S = 0.002
"""How long an idle batcher waits after a first request for others to join it: the spread of a burst of clients."""

MAX_SCORED_TOKENS = 2048
"""Most tokens of texts that are scored between two decoding steps, as of prompts that are prefilled: answers in flight
wait for them. A single longer text is still scored."""

STALL_FACTOR = 3
MIN_STALL_S = 600.0
"""A step counts as stalled after this many times the request timeout, and not before ``MIN_STALL_S``: on a slow machine
a long prompt may take longer than its request's timeout, which is no reason to restart the server."""


class Batcher:
    """One thread that answers the requests to one loaded checkpoint, first come, first served.

    The thread ends once the batcher is closed and everything is answered. ``limit_s`` is the timeout of a request. A
    single step that takes longer than ``stall_s`` counts as stalled; the default is a multiple of ``limit_s``.
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
        self._waiting: deque[PendingRequest] = deque()
        self._to_score: deque[PendingScore] = deque()
        self._answering: list[PendingRequest] = []
        self._scoring: list[PendingScore] = []
        self._change = threading.Condition()
        self._closing = threading.Event()
        self._has_ended = False
        if stall_s is None:
            stall_s = max(MIN_STALL_S, STALL_FACTOR * limit_s)
        name = f"batcher-{checkpoint_id}"
        self._thread = WatchedThread(self._run, watchdog, self._closing, name=name, limit_s=stall_s)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._to_score)

    @property
    def in_flight(self) -> int:
        return len(self._answering)

    def submit(self, pending: PendingRequest | PendingScore) -> None:
        """Queue a request. Raises BeingUnloaded after ``close``, and a 503 ApiError if the queue is full or the thread
        has ended."""
        with self._change:
            if self._closing.is_set():
                raise BeingUnloaded(self._checkpoint_id)
            if self._has_ended:
                raise _thread_ended()
            if self.waiting >= self._max_queue:
                self._expire_waiting()  # the thread does so too, but only between two steps
            if self.waiting >= self._max_queue:
                raise ApiError(503, "overloaded", f"{self._max_queue} requests are waiting (serving.max_queue).", 1)
            if isinstance(pending, PendingScore):
                self._to_score.append(pending)
            else:
                self._waiting.append(pending)
            self._change.notify()

    def close(self, timeout_s: float) -> bool:
        """Refuse new requests, answer the queued ones, and end the thread; returns whether it ended in time."""
        with self._change:
            self._closing.set()
            self._change.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            batch = self._generator.continuous_batch(self._max_batch)
            while self._wait_for_work(batch):
                self._score(self._take_to_score())
                self._step(batch, self._take_joining(batch))
        finally:
            self._fail_all()

    def _wait_for_work(self, batch: ContinuousBatch[PendingRequest]) -> bool:
        """Wait for a request; False once the batcher is closed and everything is answered."""
        with self._change:
            if not self.waiting and not batch.requests and not self._closing.is_set():
                self._thread.watch.rest()
                self._change.wait_for(lambda: self.waiting or self._closing.is_set())
                self._thread.watch.beat()
                self._wait_for_more()
            return bool(self.waiting or batch.requests or not self._closing.is_set())

    def _take_to_score(self) -> list[PendingScore]:
        """Texts to score now, at least one if any waits."""
        taken: list[PendingScore] = []
        with self._change:
            tokens = 0
            while self._to_score and len(taken) < self._max_batch:
                tokens += len(self._to_score[0].token_ids)
                if taken and tokens > MAX_SCORED_TOKENS:
                    break
                taken.append(self._to_score.popleft())
        return _still_waiting(taken)

    def _score(self, scoring: list[PendingScore]) -> None:
        if not scoring:
            return
        self._thread.watch.beat()
        self._scoring = scoring
        try:
            texts = [pending.token_ids for pending in scoring]
            found = self._generator.score_texts(texts, max(pending.top for pending in scoring))
        except Exception as error:  # passed on to the requests, so that the thread continues
            log.exception("scoring %d texts by %s failed", len(scoring), self._checkpoint_id)
            for pending in scoring:
                pending.fail(error)
        else:
            for pending, scores in zip(scoring, found, strict=True):
                pending.settle(scores)
        self._scoring = []

    def _take_joining(self, batch: ContinuousBatch[PendingRequest]) -> list[PendingRequest]:
        """The requests that join now; none if all queued ones have expired or do not fit."""
        with self._change:
            self._expire_waiting()
            fitting = batch.fitting([pending.prompt for pending in islice(self._waiting, self._max_batch)])
            return [self._waiting.popleft() for _ in range(fitting)]

    def _step(self, batch: ContinuousBatch[PendingRequest], joining: list[PendingRequest]) -> None:
        self._thread.watch.beat()
        self._answering = [*batch.requests, *joining]
        if not self._answering:
            return
        try:
            restarted = batch.advance(joining)
        except Exception as error:  # passed on to the requests, so that the thread continues
            log.exception("a batch of %d requests to %s failed", len(self._answering), self._checkpoint_id)
            batch.clear()
            for pending in self._answering:
                pending.fail(error)
        else:
            self._requeue(restarted)
        self._answering = batch.requests

    def _fail_all(self) -> None:
        """Fail all requests when the thread ends for any reason, so that none waits forever."""
        with self._change:
            self._has_ended = True
            for answer in (*self._answering, *self._waiting):
                answer.fail(_thread_ended())
            for score in (*self._scoring, *self._to_score):
                score.fail(_thread_ended())
            self._waiting.clear()
            self._to_score.clear()
            self._answering, self._scoring = [], []

    def _wait_for_more(self) -> None:
        ends_at = time.monotonic() + self._wait_s
        while self.waiting < self._max_batch and not self._closing.is_set():
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or not self._change.wait(left_s):
                return

    def _expire_waiting(self) -> None:
        """Remove the requests whose clients have stopped waiting."""
        self._waiting = deque(_still_waiting(self._waiting))
        self._to_score = deque(_still_waiting(self._to_score))

    def _requeue(self, requests: Sequence[PendingRequest]) -> None:
        """Put requests back at the head of the queue, to start again before those that came later."""
        with self._change:
            self._waiting.extendleft(reversed(requests))


def _still_waiting(requests: Iterable[Kind]) -> list[Kind]:
    """Those whose clients still wait; the others are expired."""
    waiting = []
    for pending in requests:
        if pending.is_over:
            pending.expire()
        else:
            waiting.append(pending)
    return waiting


def _thread_ended() -> ApiError:
    return ApiError(503, "stalled", "the thread that answers requests has ended; the server restarts.", retry_after_s=5)
