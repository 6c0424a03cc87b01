"""The routes that the deployer uses, behind a bearer token."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import SecretStr

from ratchet.errors import GenerationError
from ratchet.inference.generator import Chat, Decoding
from ratchet.serving import wire
from ratchet.serving.body import Model, read_body
from ratchet.serving.fleet import Fleet, Loaded
from ratchet.serving.metrics import Metrics
from ratchet.serving.protocol import Traffic
from ratchet.serving.refusal import Refusal, TimedOut
from ratchet.serving.ticket import Ticket, expiring

MAX_BODY_BYTES = 64 * 1024 * 1024

Result = TypeVar("Result")


class AdminRoute:
    """Loads, checks, switches and unloads. Everything slow runs in a thread, so that clients never wait for it."""

    def __init__(self, fleet: Fleet, metrics: Metrics, token: SecretStr, timeout_s: float):
        """``timeout_s`` is how long a client's request may take."""
        self._timeout_s = timeout_s
        self._fleet = fleet
        self._metrics = metrics
        self._token = token
        self.router = APIRouter(prefix="/admin", dependencies=[Depends(self._require_token)])
        for name in ("load", "unload", "switch", "score", "generate"):
            self.router.add_api_route(f"/{name}", getattr(self, name), methods=["POST"])
        self.router.add_api_route("/ping", self.ping, methods=["GET"])
        self.router.add_api_route("/stats/{checkpoint_id:path}", self.stats, methods=["GET"])

    def _require_token(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        expected = self._token.get_secret_value().encode()
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), expected):
            raise Refusal(401, "unauthorized", "/admin needs the bearer token of serving.admin_token.")

    async def ping(self) -> dict[str, str]:
        """For those who want to know whether their token is the right one."""
        return {"token": "right"}

    async def load(self, request: Request) -> dict[str, str]:
        body = await _body(request, wire.Load)
        await asyncio.to_thread(self._fleet.load, body.checkpoint_id, Path(body.path), body.weights)
        return {"loaded": body.checkpoint_id}

    async def unload(self, request: Request) -> dict[str, str]:
        body = await _body(request, wire.Unload)
        await asyncio.to_thread(self._fleet.unload, body.checkpoint_id)
        return {"unloaded": body.checkpoint_id}

    async def switch(self, request: Request) -> dict[str, str]:
        body = await _body(request, wire.Switch)
        if await asyncio.to_thread(self._fleet.switch, body.checkpoint_id, body.fencing_token, body.certainty):
            self._metrics.switched()
        return {"live": body.checkpoint_id}

    async def score(self, request: Request) -> wire.Scores:
        body = await _body(request, wire.Score)
        if len(body.chats) != len(body.answers):
            raise Refusal(400, "invalid_request", "chats and answers must be of one length.")
        loaded = self._fleet.named(body.checkpoint_id)
        logprobs = await _computed(lambda: loaded.generator.score(body.chats, body.answers))
        return wire.Scores(weights=loaded.weights, logprobs=tuple(logprobs))

    async def generate(self, request: Request) -> wire.Generations:
        """Answers, and then the first of them once more through the queue that clients wait in.

        What does not answer there fails here, as no client may be around to notice.
        """
        body = await _body(request, wire.Generate)
        loaded = self._fleet.named(body.checkpoint_id)
        answers = await _computed(lambda: loaded.generator.generate(body.chats, body.decoding))
        if body.chats:
            await self._probe(loaded, body.chats[0])
        return wire.Generations(generations=tuple(answers))

    async def _probe(self, loaded: Loaded, chat: Chat) -> None:
        ticket = Ticket(loaded.generator.prompt(chat, Decoding(max_new_tokens=1)), self._timeout_s)
        loaded.batcher.submit(ticket)
        with expiring(ticket):
            try:
                await asyncio.wrap_future(ticket.future)
            except TimedOut as error:
                why = f"{loaded.checkpoint_id} does not answer clients: {error}"
                raise Refusal(422, "generation_failed", why) from error
            finally:
                ticket.cancel()

    async def stats(self, checkpoint_id: str) -> Traffic:
        return self._fleet.named(checkpoint_id).traffic.read()


async def _body(request: Request, model: type[Model]) -> Model:
    return await read_body(request, model, MAX_BODY_BYTES)


async def _computed(work: Callable[[], Result]) -> Result:
    try:
        return await asyncio.to_thread(work)
    except GenerationError as error:
        raise Refusal(422, "generation_failed", str(error)) from error
