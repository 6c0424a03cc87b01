"""The inference server as an ASGI application: errors, the read-only routes, and /admin, which the deployer uses.

Clients' requests are in chat_route. The ModelManager holds which checkpoints are loaded and which one is live.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from ratchet.errors import GenerationError, RatchetError, TransientError
from ratchet.inference.generator import Chat, Decoding
from ratchet.serving import protocol
from ratchet.serving.answering import Answering
from ratchet.serving.chat_route import ChatRoute
from ratchet.serving.completions_route import CompletionsRoute
from ratchet.serving.guard import watched_loop
from ratchet.serving.http_errors import ApiError, Model, TimedOut, read_body
from ratchet.serving.metrics import Metrics
from ratchet.serving.model_manager import LoadedCheckpoint, ModelManager
from ratchet.serving.origins import restrict_callers
from ratchet.serving.pending import PendingRequest, expiring
from ratchet.serving.protocol import Health, Traffic
from ratchet.settings.serving import ServingSettings

ROUTES = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /health and GET /metrics"
READ = ["GET", "HEAD"]
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Large enough for a canary, which sends all its chats and answers in one body."""

Result = TypeVar("Result")


def build_app(
    manager: ModelManager, settings: ServingSettings, token: SecretStr, on_tick: Callable[[], None] = lambda: None
) -> FastAPI:
    """The application. The manager is restored before the first request, and drained after the last.

    ``on_tick`` is called in the event loop once a second.
    """
    metrics = Metrics(manager)
    app = FastAPI(title="Ratchet inference server", lifespan=_lifespan(manager, on_tick), openapi_url=None)
    answering = Answering(manager, metrics, settings)
    app.include_router(ChatRoute(answering).router)
    app.include_router(CompletionsRoute(answering).router)
    app.include_router(AdminRoute(manager, metrics, token, settings.request_timeout_s).router)
    started = int(time.time())

    @app.api_route("/v1/models", methods=READ)
    async def models() -> dict[str, Any]:
        entries = [_model(name, manager, started) for name in manager.names()]
        return {"object": "list", "data": entries}

    @app.api_route("/v1/models/{name:path}", methods=READ)
    async def model(name: str) -> dict[str, Any]:
        if name not in manager.names():
            manager.named(name)
        return _model(name, manager, started)

    @app.api_route("/health", methods=READ)
    async def health(response: Response) -> Health:
        """503 once a thread of the server has ended or stalled. A checkpoint that cannot be loaded does not count."""
        if manager.watchdog.problem is not None:
            response.status_code = 503
        return manager.health()

    @app.api_route("/metrics", methods=READ)
    async def scrape() -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        api_error = _as_api_error(error)
        if request.url.path in ("/v1/chat/completions", "/v1/completions"):
            metrics.refused(api_error.status)
        headers = {} if api_error.retry_after_s is None else {"retry-after": str(api_error.retry_after_s)}
        return JSONResponse(api_error.body, status_code=api_error.status, headers=headers)

    for kind in (RatchetError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)
    restrict_callers(app, settings)
    return app


def _lifespan(manager: ModelManager, on_tick: Callable[[], None]) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with watched_loop(manager.watchdog, on_tick):
            await asyncio.to_thread(manager.restore)
            yield
            await asyncio.to_thread(manager.close)

    return lifespan


def _model(name: str, manager: ModelManager, created: int) -> dict[str, Any]:
    """An entry of /v1/models; that of the alias names the live checkpoint, if any."""
    loaded = manager.peek(name)
    behind = {"checkpoint": loaded.checkpoint_id, "weights": loaded.weights} if loaded else None
    return {"id": name, "object": "model", "created": created, "owned_by": "ratchet", "ratchet": behind}


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TransientError):
        return ApiError(503, "engine_unavailable", str(error), retry_after_s=5)
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, "http_error", f"{error.detail}. The routes are {ROUTES}.")
    if not isinstance(error, RatchetError):
        return ApiError(
            500, "server_error", f"internal error ({type(error).__name__}); the server's log has the traceback."
        )
    return ApiError(500, "server_error", str(error))


class AdminRoute:
    """Loads, checks, switches and unloads checkpoints. Slow calls run in threads, so that they do not delay clients."""

    def __init__(self, manager: ModelManager, metrics: Metrics, token: SecretStr, timeout_s: float):
        """``timeout_s`` is how long a client's request may take."""
        self._timeout_s = timeout_s
        self._manager = manager
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
            raise ApiError(401, "unauthorized", "/admin needs the bearer token of serving.admin_token_file.")

    async def ping(self) -> dict[str, str]:
        """Check the caller's token; an invalid one is answered with 401."""
        return {"token": "valid"}

    async def load(self, request: Request) -> dict[str, str]:
        body = await _read_admin_body(request, protocol.LoadRequest)
        await asyncio.to_thread(self._manager.load, body.checkpoint_id, Path(body.path), body.weights)
        return {"loaded": body.checkpoint_id}

    async def unload(self, request: Request) -> dict[str, str]:
        body = await _read_admin_body(request, protocol.UnloadRequest)
        await asyncio.to_thread(self._manager.unload, body.checkpoint_id)
        return {"unloaded": body.checkpoint_id}

    async def switch(self, request: Request) -> dict[str, str]:
        body = await _read_admin_body(request, protocol.SwitchRequest)
        if await asyncio.to_thread(self._manager.switch, body.checkpoint_id, body.fencing_token, body.certainty):
            self._metrics.switched()
        return {"live": body.checkpoint_id}

    async def score(self, request: Request) -> protocol.ScoreResponse:
        body = await _read_admin_body(request, protocol.ScoreRequest)
        if len(body.chats) != len(body.answers):
            raise ApiError(400, "invalid_request", "chats and answers must have the same length.")
        loaded = self._manager.named(body.checkpoint_id)
        logprobs = await _in_thread(lambda: loaded.generator.score(body.chats, body.answers))
        return protocol.ScoreResponse(weights=loaded.weights, logprobs=tuple(logprobs))

    async def generate(self, request: Request) -> protocol.GenerateResponse:
        """Answer the chats, and then the first one again through the clients' queue.

        So a queue that does not answer fails the canary even if there are no clients.
        """
        body = await _read_admin_body(request, protocol.GenerateRequest)
        loaded = self._manager.named(body.checkpoint_id)
        answers = await _in_thread(lambda: loaded.generator.generate(body.chats, body.decoding))
        if body.chats:
            await self._probe(loaded, body.chats[0])
        return protocol.GenerateResponse(generations=tuple(answers))

    async def _probe(self, loaded: LoadedCheckpoint, chat: Chat) -> None:
        pending = PendingRequest(loaded.generator.prompt(chat, Decoding(max_new_tokens=1)), self._timeout_s)
        loaded.batcher.submit(pending)
        with expiring(pending):
            try:
                await asyncio.wrap_future(pending.future)
            except TimedOut as error:
                why = f"{loaded.checkpoint_id} does not answer clients: {error}"
                raise ApiError(422, "generation_failed", why) from error
            finally:
                pending.cancel()

    async def stats(self, checkpoint_id: str) -> Traffic:
        return self._manager.named(checkpoint_id).traffic.read()


async def _read_admin_body(request: Request, model: type[Model]) -> Model:
    return await read_body(request, model, MAX_BODY_BYTES)


async def _in_thread(work: Callable[[], Result]) -> Result:
    try:
        return await asyncio.to_thread(work)
    except GenerationError as error:
        raise ApiError(422, "generation_failed", str(error)) from error
