"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from ratchet.errors import RatchetError, TransientError
from ratchet.serving.admin_route import AdminRoute
from ratchet.serving.chat_route import ChatRoute
from ratchet.serving.fleet import Fleet
from ratchet.serving.guard import watched_loop
from ratchet.serving.metrics import Metrics
from ratchet.serving.protocol import Health
from ratchet.serving.refusal import Refusal
from ratchet.settings.serving import ServingSettings

ROUTES = "POST /v1/chat/completions, GET /v1/models, GET /health and GET /metrics"


def build_app(
    fleet: Fleet, settings: ServingSettings, token: SecretStr, on_tick: Callable[[], None] = lambda: None
) -> FastAPI:
    """Serve a fleet; it is restored before the first request, and drained after the last.

    ``on_tick`` is called in the event loop once a second.
    """
    metrics = Metrics(fleet)
    app = FastAPI(title="Ratchet inference server", lifespan=_lifespan(fleet, on_tick), openapi_url=None)
    app.include_router(ChatRoute(fleet, metrics, settings).router)
    app.include_router(AdminRoute(fleet, metrics, token, settings.request_timeout_s).router)
    started = int(time.time())

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entries = [_model(name, fleet, started) for name in fleet.names()]
        return {"object": "list", "data": entries}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name not in fleet.names():
            fleet.named(name)
        return _model(name, fleet, started)

    @app.get("/health")
    async def health(response: Response) -> Health:
        """503 where requests are not answered any longer. A checkpoint that cannot be loaded is no such case."""
        if fleet.watchdog.problem is not None:
            response.status_code = 503
        return fleet.health()

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        refusal = _as_refusal(error)
        if request.url.path.startswith("/v1/chat"):
            metrics.refused(refusal.status)
        headers = {} if refusal.retry_after_s is None else {"retry-after": str(refusal.retry_after_s)}
        return JSONResponse(refusal.body, status_code=refusal.status, headers=headers)

    for kind in (RatchetError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)
    return app


def _lifespan(fleet: Fleet, on_tick: Callable[[], None]) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with watched_loop(fleet.watchdog, on_tick):
            await asyncio.to_thread(fleet.restore)
            yield
            await asyncio.to_thread(fleet.close)

    return lifespan


def _model(name: str, fleet: Fleet, created: int) -> dict[str, Any]:
    """An entry of /v1/models; the alias names the checkpoint behind it, if any."""
    loaded = fleet.peek(name)
    behind = {"checkpoint": loaded.checkpoint_id, "weights": loaded.weights} if loaded else None
    return {"id": name, "object": "model", "created": created, "owned_by": "ratchet", "ratchet": behind}


def _as_refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TransientError):
        return Refusal(503, "engine_away", str(error), retry_after_s=5)
    if isinstance(error, HTTPException):
        return Refusal(error.status_code, "http_error", f"{error.detail}: {ROUTES} are served.")
    if not isinstance(error, RatchetError):
        return Refusal(
            500, "server_error", f"a fault of the server ({type(error).__name__}); its log has the traceback."
        )
    return Refusal(500, "server_error", str(error))
