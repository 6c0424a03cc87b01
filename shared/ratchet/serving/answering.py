"""Answering clients' requests: queue them, wait for or stream the answers, and cancel them on disconnect.

The formats of requests and answers are in chat_api and completions_api, the batching in batcher.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ratchet.inference.generator import Generation
from ratchet.serving.answer_body import DONE, AnswerBodies, Certain, Piece, TokenRange, event
from ratchet.serving.http_errors import ApiError, BeingUnloaded, ClientDisconnected, TimedOut
from ratchet.serving.metrics import Metrics
from ratchet.serving.model_manager import LoadedCheckpoint, ModelManager
from ratchet.serving.pending import PendingRequest, PendingScore, TokenStream, expiring
from ratchet.settings.serving import ServingSettings

if TYPE_CHECKING:
    from ratchet.inference.sampling import Prompt

MAX_RETRIES = 10
"""Attempts to queue a request whose checkpoint is unloaded between resolving and queueing: the new live one gets it."""

AFTER_SHUTDOWN_S = 10
"""Retry-After for a client whose answer would take longer than the server may drain (serving.drain_s)."""

LONG_TEXT = 10_000
"""Requests with more characters are tokenized in a thread, so that they do not block the event loop."""

LATE_S = 0.05
"""How long a disconnect is waited for after the time limit. If the process stood still past the limit, both are there
at once, and the limit is noticed first."""

MAX_BODY_BYTES = 1_048_576
"""Far more than fits into any context. A larger body is refused before it is parsed."""


@dataclass(frozen=True)
class Work:
    """What one request asks of a model: prompts to answer, and texts to score with the ``top`` likeliest tokens."""

    prompts: Sequence[Prompt]
    texts: Sequence[tuple[int, ...]] = ()
    top: int = 0


@dataclass
class Queued:
    """The work of one request that a checkpoint is doing: answers in the order of its choices, and scores."""

    loaded: LoadedCheckpoint
    stream: TokenStream | None
    started: float
    answers: list[PendingRequest] = field(default_factory=list)
    scores: list[PendingScore] = field(default_factory=list)

    @property
    def all(self) -> tuple[PendingRequest | PendingScore, ...]:
        return (*self.scores, *self.answers)

    def cancel(self) -> None:
        for pending in self.all:
            pending.cancel()

    @property
    def is_done(self) -> bool:
        return all(pending.future.done() for pending in self.all)


class Answering:
    """Queues prompts for the checkpoints of a ModelManager, and counts what becomes of them."""

    def __init__(self, manager: ModelManager, metrics: Metrics, settings: ServingSettings):
        self.manager = manager
        self.metrics = metrics
        self.settings = settings

    async def queue(
        self, model: str, characters: int, prepare: Callable[[LoadedCheckpoint], Work], *, streamed: bool
    ) -> Queued:
        """Queue what ``prepare`` makes for the checkpoint of a model name.

        If the checkpoint is being unloaded, it is queued for the one that is live by then. A long text is prepared in a
        thread; TimedOut is raised if none becomes free in time. Raises a 503 ApiError if the queue is full.
        """
        started = time.perf_counter()
        for _ in range(MAX_RETRIES):
            loaded = self.manager.resolve(model)
            if characters > LONG_TEXT:
                work = await self._prepared_in_thread(loaded, prepare)
            else:
                work = prepare(loaded)
            try:
                return self._submit(loaded, work, started, streamed)
            except BeingUnloaded:
                continue
        raise ApiError(503, "unsettled", "the live checkpoint changes too often; try again.", retry_after_s=1)

    async def _prepared_in_thread(self, loaded: LoadedCheckpoint, prepare: Callable[[LoadedCheckpoint], Work]) -> Work:
        try:
            return await asyncio.wait_for(asyncio.to_thread(prepare, loaded), self.settings.request_timeout_s)
        except TimeoutError:
            loaded.traffic.failed()
            raise TimedOut(self.settings.request_timeout_s) from None

    def _submit(self, loaded: LoadedCheckpoint, work: Work, started: float, streamed: bool) -> Queued:
        """Submit all of the work, or, if the queue refuses a part, none."""
        parts, most = len(work.prompts) + len(work.texts), self.settings.max_queue
        if parts > most:
            why = f"prompts and answers of this request are {parts} together; {most} fit (serving.max_queue)."
            raise ApiError(400, "too_many_answers", why, param="n")
        stream = TokenStream(asyncio.get_running_loop(), len(work.prompts)) if streamed else None
        queued = Queued(loaded, stream, started)
        timeout_s = self.settings.request_timeout_s
        try:
            for text in work.texts:
                scoring = PendingScore(text, timeout_s, work.top)
                loaded.batcher.submit(scoring)
                queued.scores.append(scoring)
            for index, prompt in enumerate(work.prompts):
                answering = PendingRequest(prompt, timeout_s, stream.sink(index) if stream else None)
                loaded.batcher.submit(answering)
                queued.answers.append(answering)
        except ApiError:
            queued.cancel()
            raise
        if stream:
            for index, pending in enumerate(queued.answers):
                pending.future.add_done_callback(stream.end(index))
        return queued

    async def whole(
        self, request: Request, queued: Queued, bodies: AnswerBodies, certain: Callable[[Generation], Certain]
    ) -> Response:
        """The body of all answers, once they are complete."""
        with cancelled_with_client(request, queued), expiring(*queued.all):
            generations = await self.wait(queued.loaded, queued.answers)
        self.count(queued, generations)
        return JSONResponse(bodies.whole(generations, certain(generations[0])), headers=bodies.headers)

    async def wait(
        self, loaded: LoadedCheckpoint, waiting: Sequence[PendingRequest] | Sequence[PendingScore]
    ) -> list[Any]:
        """The results, in order. Failures of the server are counted and become an ApiError; a client that has gone is
        none."""
        try:
            return list(await asyncio.gather(*(asyncio.wrap_future(pending.future) for pending in waiting)))
        except ClientDisconnected:
            raise
        except asyncio.CancelledError:
            raise ApiError(503, "shutting_down", "the server is shutting down; try again.", AFTER_SHUTDOWN_S) from None
        except TimedOut:
            await asyncio.sleep(LATE_S)
            if any(pending.is_cancelled for pending in waiting):
                raise ClientDisconnected from None
            loaded.traffic.failed()
            raise
        except ApiError:
            loaded.traffic.failed()
            raise
        except Exception as error:
            loaded.traffic.failed()
            raise ApiError(500, "generation_failed", str(error)) from error

    async def events(
        self, queued: Queued, bodies: AnswerBodies, certain: Callable[[Generation], Certain], *, with_usage: bool
    ) -> AsyncIterator[str]:
        """Server-sent events, until the end of all answers or an error."""
        assert queued.stream is not None, "events are those of a streamed request"
        sent = [_Sent() for _ in queued.answers]
        try:
            for index in range(len(sent)):
                yield bodies.first(index)
            async for index, has_ended in queued.stream.changes():
                piece = None
                if not has_ended:
                    piece = sent[index].growth(index, queued)
                else:
                    [generation] = await self.wait(queued.loaded, [queued.answers[index]])
                    piece = sent[index].rest(index, generation, certain(generation))
                if piece:
                    yield bodies.chunk(piece)
            generations = await self.wait(queued.loaded, queued.answers)
            self.count(queued, generations)
            if with_usage:
                yield bodies.usage_chunk(generations)
            yield DONE
        except ApiError as api_error:
            self.metrics.refused(api_error.status)
            yield event(api_error.body)

    def count(self, queued: Queued, generations: Sequence[Generation]) -> None:
        """Count an answered request, in the metrics and for the deployer."""
        latency_s = time.perf_counter() - queued.started
        prompt_tokens = sum(generation.prompt_tokens for generation in generations)
        generated = sum(len(generation.token_ids) for generation in generations)
        queued.loaded.traffic.answered(latency_s, generated)
        self.metrics.answered(latency_s, prompt_tokens, generated)


@dataclass
class _Sent:
    """How much of one answer a stream has sent."""

    text: str = ""
    tokens: int = 0

    def growth(self, index: int, queued: Queued) -> Piece | None:
        """The new text that further tokens cannot change, if there is any."""
        assert queued.stream is not None
        tokens, loaded = queued.stream.tokens[index], queued.loaded
        settled = loaded.generator.text.settled(tokens.ids, queued.answers[index].prompt.decoding)
        if len(settled) <= len(self.text):
            return None
        start = self.tokens
        new = TokenRange(tokens.ids[start:], tokens.logprobs[start:], tokens.top[start:])
        piece = Piece(index, settled[len(self.text) :], new)
        self.text, self.tokens = settled, len(tokens.ids)
        return piece

    def rest(self, index: int, generation: Generation, certain: Certain) -> Piece:
        text, tokens = generation.text[len(self.text) :], TokenRange.of(generation, self.tokens)
        return Piece(index, text, tokens, generation.finish_reason, certain)


class EventStream(StreamingResponse):
    """The events of a request's answers. If the client disconnects, its answers leave the batch, even before the first
    event."""

    def __init__(self, events: AsyncIterator[str], queued: Queued, metrics: Metrics, headers: dict[str, str]):
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._queued, self._metrics = queued, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with expiring(*self._queued.all):
                await super().__call__(scope, receive, send)
        finally:
            if not self._queued.is_done:
                self._metrics.refused(ClientDisconnected().status)
            self._queued.cancel()


@contextmanager
def cancelled_with_client(request: Request, queued: Queued) -> Iterator[None]:
    """Remove a request's work from the queue when its client disconnects."""
    gone = asyncio.ensure_future(request.receive())  # after the body, only the disconnect can come
    gone.add_done_callback(lambda done: None if done.cancelled() else queued.cancel())
    try:
        yield
    finally:
        gone.cancel()
        queued.cancel()
