"""One request that waits for its answer or its scores, with its time limit; and the stream of an answer's tokens.

What computes the result is in batcher or vllm_engine, in a thread; who waits for it is in the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from ratchet.inference.generator import Generation, TokenScores, TopTokens
from ratchet.serving.http_errors import ClientDisconnected, TimedOut

if TYPE_CHECKING:
    from ratchet.inference.sampling import Answer, Prompt

OnToken = Callable[["Answer"], None]
"""Called in the batch's thread after every token of an answer."""

Result = TypeVar("Result")


class Pending(Generic[Result]):
    """A request whose result or error is set in ``future``; the first outcome counts."""

    def __init__(self, timeout_s: float):
        self.future: Future[Result] = Future()
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._cancelled = False

    @property
    def is_over(self) -> bool:
        """Whether the client has stopped waiting: it has its answer, has disconnected, or the request timed out."""
        return self._cancelled or self.future.done() or time.monotonic() > self._ends_at

    @property
    def is_cancelled(self) -> bool:
        """Whether the client has disconnected, before or after the request ended in another way."""
        return self._cancelled

    @property
    def left_s(self) -> float:
        """Time left until it expires."""
        return max(0.0, self._ends_at - time.monotonic())

    def cancel(self) -> None:
        """Cancel after the client has disconnected. An answer that is already set stays."""
        self._cancelled = True
        self.fail(ClientDisconnected())

    def settle(self, result: Result) -> None:
        if self.is_over:
            self.expire()
        else:
            with suppress(InvalidStateError):
                self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def expire(self) -> None:
        self.fail(TimedOut(self._timeout_s))


class PendingRequest(Pending[Generation]):
    """A prompt to answer."""

    def __init__(self, prompt: Prompt, timeout_s: float, on_token: OnToken | None = None):
        super().__init__(timeout_s)
        self.prompt = prompt
        self._on_token_callback = on_token

    @property
    def is_streamed(self) -> bool:
        """Whether the client receives each token as it is decoded."""
        return self._on_token_callback is not None

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


class PendingScore(Pending[TokenScores]):
    """A text whose tokens are to be scored, with the ``top`` likeliest tokens at each position."""

    def __init__(self, token_ids: tuple[int, ...], timeout_s: float, top: int = 0):
        super().__init__(timeout_s)
        self.token_ids = token_ids
        self.top = top


@contextmanager
def expiring(*pending: PendingRequest | PendingScore) -> Iterator[None]:
    """Have the event loop expire requests in time, even if the thread that should answer them hangs."""
    loop = asyncio.get_running_loop()
    with ExitStack() as timers:
        for each in pending:
            timers.callback(loop.call_later(each.left_s, each.expire).cancel)
        yield


@dataclass(frozen=True)
class _Token:
    """A token at a place of one of the answers; without ``token_id``, the end of that answer."""

    answer: int
    place: int = 0
    token_id: int | None = None
    logprob: float = 0.0
    top: TopTokens | None = None


@dataclass
class Tokens:
    """The tokens of an answer so far."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[TopTokens] = field(default_factory=list)


class TokenStream:
    """Passes the tokens of one request's answers from a batch's thread (``sink``, ``end``) to the event loop
    (``changes``)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: int):
        self.tokens = [Tokens() for _ in range(answers)]
        self._loop = loop
        self._queue: asyncio.Queue[_Token] = asyncio.Queue()

    def sink(self, index: int) -> OnToken:
        """A callback for the tokens of one answer."""

        def put(answer: Answer) -> None:
            top = answer.top_logprobs[-1] if answer.top_logprobs else None
            self._put(_Token(index, len(answer.token_ids) - 1, answer.token_ids[-1], answer.logprobs[-1], top))

        return put

    def end(self, index: int) -> Callable[[Future[Generation]], None]:
        """A callback for the end of one answer."""
        return lambda _future: self._put(_Token(index))

    async def changes(self) -> AsyncIterator[tuple[int, bool]]:
        """Indices of answers that have grown, and whether they have ended, until all have."""
        left = len(self.tokens)
        while left:
            new = [await self._queue.get()]
            while not self._queue.empty():
                new.append(self._queue.get_nowait())
            for token in new:
                self._take(token)
            ended = [token.answer for token in new if token.token_id is None]
            for index in dict.fromkeys(token.answer for token in new if token.answer not in ended):
                yield index, False
            for index in ended:
                yield index, True
            left -= len(ended)

    def _put(self, token: _Token) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, token)

    def _take(self, token: _Token) -> None:
        if token.token_id is None:
            return
        tokens = self.tokens[token.answer]
        # An answer that starts again after running out of memory repeats its first positions.
        for column in (tokens.ids, tokens.logprobs, tokens.top):
            del column[token.place :]
        tokens.ids.append(token.token_id)
        tokens.logprobs.append(token.logprob)
        if token.top is not None:
            tokens.top.append(token.top)
