"""The route that clients use: /v1/chat/completions."""

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
from ratchet.serving.body import read_body
from ratchet.serving.chat_answer import DONE, ChatAnswer, event
from ratchet.serving.chat_request import ChatRequest
from ratchet.serving.fleet import Fleet, Loaded
from ratchet.serving.growth import TokenStream
from ratchet.serving.metrics import Metrics
from ratchet.serving.refusal import ClientGone, Refusal, Retired, TimedOut
from ratchet.serving.ticket import Growth, Ticket, expiring
from ratchet.settings.serving import ServingSettings

SWITCHES_IN_A_ROW = 10
AFTER_SHUTDOWN_S = 10
"""What a client is told to wait whose answer took longer than the server had to drain (serving.drain_s)."""
LONG_CHAT = 10_000
"""A chat of more characters becomes tokens in a thread, so that nobody else waits for it."""


class ChatRoute:
    """Answers clients from whatever is live at the moment of their request."""

    def __init__(self, fleet: Fleet, metrics: Metrics, settings: ServingSettings):
        self._fleet = fleet
        self._metrics = metrics
        self._settings = settings
        self.router = APIRouter()
        self.router.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])

    async def complete(self, request: Request) -> Response:
        started = time.perf_counter()
        asked = await read_body(request, ChatRequest, self._settings.max_body_bytes)
        decoding = asked.decoding(self._settings)
        if asked.stream:
            growing = TokenStream(asyncio.get_running_loop())
            loaded, ticket = await self._submit(asked, decoding, growing.put)
            ticket.future.add_done_callback(growing.end)
            answer = self._answer(asked, loaded)
            events = self._events(asked, loaded, ticket, answer, growing, started)
            return TicketStream(events, ticket, self._metrics, answer.headers)
        loaded, ticket = await self._submit(asked, decoding)
        answer = self._answer(asked, loaded)
        with _left_with(request, ticket), expiring(ticket):
            generation = await self._wait(loaded, ticket, started)
        return JSONResponse(answer.whole(generation), headers=answer.headers)

    def _answer(self, asked: ChatRequest, loaded: Loaded) -> ChatAnswer:
        return ChatAnswer(asked.model, loaded, bool(asked.logprobs), self._fleet.certainty(loaded))

    async def _submit(
        self, asked: ChatRequest, decoding: Decoding, on_growth: Growth | None = None
    ) -> tuple[Loaded, Ticket]:
        """Queue the request; one that meets a checkpoint on its way out goes to the one that is live by then."""
        for _ in range(SWITCHES_IN_A_ROW):
            loaded = self._fleet.resolve(asked.model)
            if asked.characters > LONG_CHAT:
                ticket = await self._ticket_in_thread(loaded, asked, decoding, on_growth)
            else:
                ticket = self._ticket(loaded, asked, decoding, on_growth)
            try:
                loaded.batcher.submit(ticket)
            except Retired:
                continue
            return loaded, ticket
        raise Refusal(503, "unsettled", "the live checkpoint changes too fast.", retry_after_s=1)

    async def _ticket_in_thread(
        self, loaded: Loaded, asked: ChatRequest, decoding: Decoding, on_growth: Growth | None
    ) -> Ticket:
        """Raises TimedOut where no thread is free for so long."""
        making = asyncio.to_thread(self._ticket, loaded, asked, decoding, on_growth)
        try:
            return await asyncio.wait_for(making, self._settings.request_timeout_s)
        except TimeoutError:
            loaded.traffic.failed()
            raise TimedOut(self._settings.request_timeout_s) from None

    def _ticket(self, loaded: Loaded, asked: ChatRequest, decoding: Decoding, on_growth: Growth | None) -> Ticket:
        try:
            prompt = loaded.generator.prompt(asked.chat, decoding)
        except GenerationError as error:
            raise Refusal(400, "context_length_exceeded", str(error), param="messages") from error
        except RatchetError as error:
            raise Refusal(400, "invalid_request", str(error), param="messages") from error
        if asked.asked_tokens and prompt.max_new_tokens < asked.asked_tokens:
            raise Refusal(
                400,
                "context_length_exceeded",
                f"{len(prompt.token_ids)} prompt tokens and max_tokens {asked.asked_tokens} are more than the "
                f"context of {loaded.generator.context} tokens.",
                param="max_tokens",
            )
        return Ticket(prompt, self._settings.request_timeout_s, on_growth)

    async def _wait(self, loaded: Loaded, ticket: Ticket, started: float) -> Generation:
        try:
            generation = await asyncio.wrap_future(ticket.future)
        except ClientGone:
            raise
        except asyncio.CancelledError:
            raise Refusal(503, "shutting_down", "the server ends; ask again.", AFTER_SHUTDOWN_S) from None
        except Refusal:
            loaded.traffic.failed()
            raise
        except Exception as error:
            loaded.traffic.failed()
            raise Refusal(500, "generation_failed", str(error)) from error
        latency_s = time.perf_counter() - started
        loaded.traffic.answered(latency_s, len(generation.token_ids))
        self._metrics.answered(latency_s, generation.prompt_tokens, len(generation.token_ids))
        return generation

    async def _events(
        self,
        asked: ChatRequest,
        loaded: Loaded,
        ticket: Ticket,
        answer: ChatAnswer,
        growing: TokenStream,
        started: float,
    ) -> AsyncIterator[str]:
        """Server-sent events, to their end or to an error."""
        text, tokens = "", 0
        try:
            yield answer.chunk("", first=True)
            async for length in growing.lengths():
                settled = loaded.generator.text.settled(growing.token_ids, ticket.prompt.decoding)
                if len(settled) > len(text):
                    new = growing.token_ids[tokens:], growing.logprobs[tokens:]
                    yield answer.chunk(settled[len(text) :], *new)
                    text, tokens = settled, length
            generation = await self._wait(loaded, ticket, started)
            new = list(generation.token_ids[tokens:]), list(generation.token_logprobs[tokens:])
            yield answer.chunk(generation.text[len(text) :], *new, generation.finish_reason, whole=generation)
            if asked.stream_options and asked.stream_options.include_usage:
                yield answer.usage_chunk(generation)
            yield DONE
        except Refusal as refusal:
            self._metrics.refused(refusal.status)
            yield event(refusal.body)


class TicketStream(StreamingResponse):
    """An answer's events. A client that hangs up ends its row in the batch, be it before the first event."""

    def __init__(self, events: AsyncIterator[str], ticket: Ticket, metrics: Metrics, headers: dict[str, str]):
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._ticket, self._metrics = ticket, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with expiring(self._ticket):
                await super().__call__(scope, receive, send)
        finally:
            if not self._ticket.future.done():
                self._metrics.refused(ClientGone().status)
            self._ticket.cancel()


@contextmanager
def _left_with(request: Request, ticket: Ticket) -> Iterator[None]:
    """A client that hangs up takes its request out of the batch."""
    gone = asyncio.ensure_future(request.receive())  # after the body nothing comes but the end of the connection
    gone.add_done_callback(lambda done: None if done.cancelled() else ticket.cancel())
    try:
        yield
    finally:
        gone.cancel()
        ticket.cancel()
