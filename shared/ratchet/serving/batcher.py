"""Continuous batching of requests to the embedded model, with one thread per checkpoint.

A request joins those in flight between two decoding steps. Batcher owns the queue and the thread, PendingRequest is
one request with its time limit, and TokenStream passes an answer's tokens to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

from ratchet.inference.generator import Generation
from ratchet.serving.http_errors import ApiError, BeingUnloaded, ClientDisconnected, TimedOut
from ratchet.watchdog import Watchdog, WatchedThread

if TYPE_CHECKING:
    from ratchet.inference.batch_decoder import ContinuousBatch
    from ratchet.inference.local_generator import LocalGenerator
    from ratchet.inference.sampling import Answer, Prompt


log = logging.getLogger(__name__)

OnToken = Callable[["Answer"], None]
"""Called in the batch's thread after every token of an answer."""

_Token = tuple[int, int, float]
"""Position in the answer, token id, log-probability."""

BATCH_WAIT_S = 0.002
"""How long an idle batcher waits after a first request for others to join it: the spread of a burst of clients."""

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
        self._answering: list[PendingRequest] = []
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
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        return len(self._answering)

    def submit(self, pending: PendingRequest) -> None:
        """Queue a request. Raises BeingUnloaded after ``close``, and a 503 ApiError if the queue is full or the thread
        has ended."""
        with self._change:
            if self._closing.is_set():
                raise BeingUnloaded(self._checkpoint_id)
            if self._has_ended:
                raise _thread_ended()
            if len(self._waiting) >= self._max_queue:
                self._expire_waiting()  # the thread does so too, but only between two steps
            if len(self._waiting) >= self._max_queue:
                raise ApiError(503, "overloaded", f"{self._max_queue} requests are waiting (serving.max_queue).", 1)
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
                self._step(batch, self._take_joining(batch))
        finally:
            self._fail_all()

    def _wait_for_work(self, batch: ContinuousBatch[PendingRequest]) -> bool:
        """Wait for a request; False once the batcher is closed and everything is answered."""
        with self._change:
            if not self._waiting and not batch.requests and not self._closing.is_set():
                self._thread.watch.rest()
                self._change.wait_for(lambda: self._waiting or self._closing.is_set())
                self._thread.watch.beat()
                self._wait_for_more()
            return bool(self._waiting or batch.requests or not self._closing.is_set())

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
            for pending in (*self._answering, *self._waiting):
                pending.fail(_thread_ended())
            self._waiting.clear()
            self._answering = []

    def _wait_for_more(self) -> None:
        ends_at = time.monotonic() + self._wait_s
        while len(self._waiting) < self._max_batch and not self._closing.is_set():
            left_s = ends_at - time.monotonic()
            if left_s <= 0 or not self._change.wait(left_s):
                return

    def _expire_waiting(self) -> None:
        """Remove the requests whose clients have stopped waiting."""
        waiting: deque[PendingRequest] = deque()
        for pending in self._waiting:
            if pending.is_over:
                pending.expire()
            else:
                waiting.append(pending)
        self._waiting = waiting

    def _requeue(self, requests: Sequence[PendingRequest]) -> None:
        """Put requests back at the head of the queue, to start again before those that came later."""
        with self._change:
            self._waiting.extendleft(reversed(requests))


def _thread_ended() -> ApiError:
    return ApiError(503, "stalled", "the thread that answers requests has ended; the server restarts.", retry_after_s=5)


class PendingRequest:
    """A prompt whose answer or error is set in ``future``; the first outcome counts."""

    def __init__(self, prompt: Prompt, timeout_s: float, on_token: OnToken | None = None):
        self.prompt = prompt
        self.future: Future[Generation] = Future()
        self._on_token_callback = on_token
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._cancelled = False

    @property
    def is_over(self) -> bool:
        """Whether the client has stopped waiting: it has its answer, has disconnected, or the request timed out."""
        return self._cancelled or self.future.done() or time.monotonic() > self._ends_at

    @property
    def left_s(self) -> float:
        """Time left until it expires."""
        return max(0.0, self._ends_at - time.monotonic())

    @property
    def is_streamed(self) -> bool:
        """Whether the client receives each token as it is decoded."""
        return self._on_token_callback is not None

    def cancel(self) -> None:
        """Cancel after the client has disconnected. An answer that is already set stays."""
        self._cancelled = True
        self.fail(ClientDisconnected())

    def on_token(self, answer: Answer) -> bool:
        """Pass on a new token; returns True if decoding can stop.

        A closed event loop fails this request alone, not the whole batch.
        """
        if self.is_over:
            return True
        if self._on_token_callback:
            try:
                self._on_token_callback(answer)
            except RuntimeError as error:
                self.fail(error)
                return True
        return False

    def settle(self, generation: Generation) -> None:
        if self.is_over:
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
def expiring(pending: PendingRequest) -> Iterator[None]:
    """Have the event loop expire a request in time, even if the thread that should answer it hangs."""
    timer = asyncio.get_running_loop().call_later(pending.left_s, pending.expire)
    try:
        yield
    finally:
        timer.cancel()


class TokenStream:
    """Passes an answer's tokens from the batch's thread (``put``, ``end``) to the event loop (``lengths``)."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self._loop = loop
        self._tokens: asyncio.Queue[_Token | None] = asyncio.Queue()

    def put(self, answer: Answer) -> None:
        token = (len(answer.token_ids) - 1, answer.token_ids[-1], answer.logprobs[-1])
        self._loop.call_soon_threadsafe(self._tokens.put_nowait, token)

    def end(self, _future: Future[Generation]) -> None:
        self._loop.call_soon_threadsafe(self._tokens.put_nowait, None)

    async def lengths(self) -> AsyncIterator[int]:
        """Yield the number of tokens so far, each time it has changed, until the end."""
        while (token := await self._tokens.get()) is not None:
            self._take(token)
            while not self._tokens.empty():
                token = self._tokens.get_nowait()
                if token is None:
                    return
                self._take(token)
            yield len(self.token_ids)

    def _take(self, token: _Token) -> None:
        place, token_id, logprob = token
        # An answer that starts again after running out of memory repeats its first positions.
        del self.token_ids[place:], self.logprobs[place:]
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
