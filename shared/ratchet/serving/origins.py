"""Who may call the server: web pages of loopback addresses and of ``serving.allowed_origins``, under known names.

Only browsers send an Origin. One that is not allowed is refused, since its page could otherwise use a server that only
this machine is meant to reach. A page that lets its own name lead to this machine needs no other origin, but is told by
the name in its Host header. The /admin routes have their own token.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ratchet.serving.http_errors import ApiError
from ratchet.settings.serving import ServingSettings

PREFLIGHT_MAX_AGE_S = 600


def restrict_callers(app: FastAPI, settings: ServingSettings) -> None:
    """Answer preflight requests of allowed pages, and refuse the requests of all others, and under foreign names."""
    app.add_middleware(OriginMiddleware, allowed=tuple(origin.rstrip("/") for origin in settings.allowed_origins))
    known = (*settings.allowed_hosts, settings.host, urlsplit(settings.base_url).hostname or "")
    app.add_middleware(HostMiddleware, allowed=frozenset(name.lower().rstrip(".") for name in known))


def is_local(name: str) -> bool:
    """Whether no page on the internet can have this name: addresses, and names without a dot, which are local."""
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


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


class HostMiddleware:
    """A 421 that names the setting, for requests under a name that is neither local nor allowed.

    HTTP/1.0 programs send none, and are not concerned.
    """

    def __init__(self, app: ASGIApp, allowed: frozenset[str]):
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = Headers(scope=scope).getlist("host") if scope["type"] == "http" else []
        if all(self._is_served_under(host) for host in named):
            await self._app(scope, receive, send)
        else:
            await _misdirected(", ".join(named))(scope, receive, send)

    def _is_served_under(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return bool(name) and ("*" in self._allowed or name in self._allowed or is_local(name))


def _misdirected(host: str) -> JSONResponse:
    message = f"this server does not serve {host[:200]!r}; add the name to serving.allowed_hosts, if it is yours."
    error = ApiError(421, "host_not_allowed", message)
    return JSONResponse(error.body, status_code=error.status)


def _refusal(origin: str) -> JSONResponse:
    message = f"pages of {origin[:200]!r} may not call this server; add the origin to serving.allowed_origins."
    error = ApiError(403, "origin_not_allowed", message)
    return JSONResponse(error.body, status_code=error.status)
