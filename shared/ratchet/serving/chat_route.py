"""The route /v1/chat/completions: queues a request, waits for or streams its answer, and cancels it on disconnect.

The formats of requests and answers are in chat_api, the batching in batcher.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ratchet.errors import GenerationError, RatchetError
from ratchet.inference.generator import Decoding, Generation
from ratchet.serving.batcher import OnToken, PendingRequest, TokenStream, expiring
from ratchet.serving.chat_api import DONE, ChatAnswer, ChatRequest, event
from ratchet.serving.http_errors import ApiError, BeingUnloaded, ClientDisconnected, TimedOut, read_body
from ratchet.serving.metrics import Metrics
from ratchet.serving.model_manager import LoadedCheckpoint, ModelManager
from ratchet.settings.serving import ServingSettings

MAX_RETRIES = 10
"""Attempts to queue a request whose checkpoint is unloaded between resolving and queueing: the new live one gets it."""

AFTER_SHUTDOWN_S = 10
"""Retry-After for a client whose answer would take longer than the server may drain (serving.drain_s)."""

LONG_CHAT = 10_000
"""Chats with more characters are tokenized in a thread, so that they do not block the event loop."""

MAX_BODY_BYTES = 1_048_576
"""Far more than fits into any context. A larger body is refused before it is parsed."""


class ChatRoute:
    """Answers clients' requests from the checkpoint that is live when they arrive."""

    def __init__(
        self,
        manager: ModelManager,
        metrics: Metrics,
        settings: ServingSettings,
        max_body_bytes: int = MAX_BODY_BYTES,
    ):
        self._max_body_bytes = max_body_bytes
        self._manager = manager
        self._metrics = metrics
        self._settings = settings
        self.router = APIRouter()
        self.router.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])

    async def complete(self, request: Request) -> Response:
        started = time.perf_counter()
        chat_request = await read_body(request, ChatRequest, self._max_body_bytes)
        decoding = chat_request.decoding(self._settings)
        if chat_request.stream:
            stream = TokenStream(asyncio.get_running_loop())
            loaded, pending = await self._submit(chat_request, decoding, stream.put)
            pending.future.add_done_callback(stream.end)
            answer = self._answer(chat_request, loaded)
            events = self._events(chat_request, loaded, pending, answer, stream, started)
            return EventStream(events, pending, self._metrics, answer.headers)
        loaded, pending = await self._submit(chat_request, decoding)
        answer = self._answer(chat_request, loaded)
        with _cancelled_with_client(request, pending), expiring(pending):
            generation = await self._wait(loaded, pending, started)
        return JSONResponse(answer.whole(generation), headers=answer.headers)

    def _answer(self, chat_request: ChatRequest, loaded: LoadedCheckpoint) -> ChatAnswer:
        return ChatAnswer(chat_request.model, loaded, bool(chat_request.logprobs), self._manager.certainty(loaded))

    async def _submit(
        self, chat_request: ChatRequest, decoding: Decoding, on_token: OnToken | None = None
    ) -> tuple[LoadedCheckpoint, PendingRequest]:
        """Queue the request. If its checkpoint is being unloaded, queue it for the one that is live by then."""
        for _ in range(MAX_RETRIES):
            loaded = self._manager.resolve(chat_request.model)
            if chat_request.characters > LONG_CHAT:
                pending = await self._pending_in_thread(loaded, chat_request, decoding, on_token)
            else:
                pending = self._pending(loaded, chat_request, decoding, on_token)
            try:
                loaded.batcher.submit(pending)
            except BeingUnloaded:
                continue
            return loaded, pending
        raise ApiError(503, "unsettled", "the live checkpoint changes too often; try again.", retry_after_s=1)

    async def _pending_in_thread(
        self, loaded: LoadedCheckpoint, chat_request: ChatRequest, decoding: Decoding, on_token: OnToken | None
    ) -> PendingRequest:
        """Raises TimedOut if no thread becomes free in time."""
        preparing = asyncio.to_thread(self._pending, loaded, chat_request, decoding, on_token)
        try:
            return await asyncio.wait_for(preparing, self._settings.request_timeout_s)
        except TimeoutError:
            loaded.traffic.failed()
            raise TimedOut(self._settings.request_timeout_s) from None

    def _pending(
        self, loaded: LoadedCheckpoint, chat_request: ChatRequest, decoding: Decoding, on_token: OnToken | None
    ) -> PendingRequest:
        try:
            prompt = loaded.generator.prompt(chat_request.chat, decoding)
        except GenerationError as error:
            raise ApiError(400, "context_length_exceeded", str(error), param="messages") from error
        except RatchetError as error:
            raise ApiError(400, "invalid_request", str(error), param="messages") from error
        max_tokens = chat_request.requested_tokens
        if max_tokens and prompt.max_new_tokens < max_tokens:
            raise ApiError(
                400,
                "context_length_exceeded",
                f"{len(prompt.token_ids)} prompt tokens and max_tokens {max_tokens} are more than the "
                f"context of {loaded.generator.context} tokens.",
                param="max_tokens",
            )
        return PendingRequest(prompt, self._settings.request_timeout_s, on_token)

    async def _wait(self, loaded: LoadedCheckpoint, pending: PendingRequest, started: float) -> Generation:
        try:
            generation = await asyncio.wrap_future(pending.future)
        except ClientDisconnected:
            raise
        except asyncio.CancelledError:
            raise ApiError(503, "shutting_down", "the server is shutting down; try again.", AFTER_SHUTDOWN_S) from None
        except ApiError:
            loaded.traffic.failed()
            raise
        except Exception as error:
            loaded.traffic.failed()
            raise ApiError(500, "generation_failed", str(error)) from error
        latency_s = time.perf_counter() - started
        loaded.traffic.answered(latency_s, len(generation.token_ids))
        self._metrics.answered(latency_s, generation.prompt_tokens, len(generation.token_ids))
        return generation

    async def _events(
        self,
        chat_request: ChatRequest,
        loaded: LoadedCheckpoint,
        pending: PendingRequest,
        answer: ChatAnswer,
        stream: TokenStream,
        started: float,
    ) -> AsyncIterator[str]:
        """Server-sent events, until the end of the answer or an error."""
        text, tokens = "", 0
        try:
            yield answer.chunk("", first=True)
            async for length in stream.lengths():
                settled = loaded.generator.text.settled(stream.token_ids, pending.prompt.decoding)
                if len(settled) > len(text):
                    new = stream.token_ids[tokens:], stream.logprobs[tokens:]
                    yield answer.chunk(settled[len(text) :], *new)
                    text, tokens = settled, length
            generation = await self._wait(loaded, pending, started)
            new = list(generation.token_ids[tokens:]), list(generation.token_logprobs[tokens:])
            yield answer.chunk(generation.text[len(text) :], *new, generation.finish_reason, whole=generation)
            if chat_request.stream_options and chat_request.stream_options.include_usage:
                yield answer.usage_chunk(generation)
            yield DONE
        except ApiError as api_error:
            self._metrics.refused(api_error.status)
            yield event(api_error.body)


class EventStream(StreamingResponse):
    """An answer's events. If the client disconnects, its request leaves the batch, even before the first event."""

    def __init__(self, events: AsyncIterator[str], pending: PendingRequest, metrics: Metrics, headers: dict[str, str]):
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._pending, self._metrics = pending, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with expiring(self._pending):
                await super().__call__(scope, receive, send)
        finally:
            if not self._pending.future.done():
                self._metrics.refused(ClientDisconnected().status)
            self._pending.cancel()


@contextmanager
def _cancelled_with_client(request: Request, pending: PendingRequest) -> Iterator[None]:
    """Remove a request from the batch when its client disconnects."""
    gone = asyncio.ensure_future(request.receive())  # after the body, only the disconnect can come
    gone.add_done_callback(lambda done: None if done.cancelled() else pending.cancel())
    try:
        yield
    finally:
        gone.cancel()
        pending.cancel()
