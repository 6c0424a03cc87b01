"""Which web pages may call the server: those of loopback addresses, and of ``serving.allowed_origins``.

Only browsers send an Origin. One that is not allowed is refused, since its page could otherwise use a server that only
this machine is meant to reach. The /admin routes have their own token.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ratchet.serving.http_errors import ApiError

PREFLIGHT_MAX_AGE_S = 600


def allow_origins(app: FastAPI, allowed: Sequence[str]) -> None:
    """Answer preflight requests of allowed pages, and refuse the requests of all others."""
    app.add_middleware(OriginMiddleware, allowed=tuple(origin.rstrip("/") for origin in allowed))


def is_loopback(origin: str) -> bool:
    """Whether a page comes from this machine."""
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class OriginMiddleware:
    """Starlette's CORSMiddleware for allowed origins, and a 403 that names the setting for the others."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]):
        self._app = app
        self._allowed = allowed
        self._cors = CORSMiddleware(
            app,
            allow_origins=["*"],  # of those that are let through
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            allow_private_network=True,  # which Chrome asks for a page of a public address
            expose_headers=["x-ratchet-checkpoint", "retry-after"],
            max_age=PREFLIGHT_MAX_AGE_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = Headers(scope=scope).get("origin") if scope["type"] == "http" else None
        if origin is None:
            await self._app(scope, receive, send)
        elif self._may_call(origin):
            await self._cors(scope, receive, send)
        else:
            await _refusal(origin)(scope, receive, send)

    def _may_call(self, origin: str) -> bool:
        return "*" in self._allowed or origin in self._allowed or is_loopback(origin)


def _refusal(origin: str) -> JSONResponse:
    message = f"pages of {origin[:200]!r} may not call this server; add the origin to serving.allowed_origins."
    error = ApiError(403, "origin_not_allowed", message)
    return JSONResponse(error.body, status_code=error.status)
