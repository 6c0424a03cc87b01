"""The web application: the pages, the feed of changes, the files of the pages, the login, and how errors are shown."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from ratchet.errors import RatchetError, TransientError
from ratchet.ledger import Ledger
from ratchet.printable import printable, printable_text
from ratchet.settings import Settings
from ratchet.web.access import Access, AccessMiddleware, LoginThrottle, local_path, refusal
from ratchet.web.pages import PAGES
from ratchet.web.rendering import browser_json
from ratchet.web.site import Fields, Page, Read, Site, site_of, wants_part

log = logging.getLogger(__name__)

THREADS = 4
"""Pages that are rendered at the same time. More would not be faster, and each has its connection to the ledger."""
STATIC = Path(__file__).parent / "static"
WRONG_PASSWORD_S = 0.5


def build_app(
    settings: Settings,
    ledger: Ledger,
    pages: tuple[Page, ...] = PAGES,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The application; ``clock`` is that of the login. Raises SettingsError for settings that let everyone in."""
    site = Site(settings, ledger, pages)
    access = Access(settings.web, settings.web_home, clock)
    app = FastAPI(title="Ratchet Control Room", openapi_url=None, lifespan=_lifespan)
    app.state.site, app.state.access = site, access
    for page in pages:
        app.get(page.path, name=page.name)(_route(page))
        for path, source in page.sources.items():
            app.get(path)(_source(source))
        app.include_router(page.router)
    app.get("/feed")(_feed)
    app.get("/health")(_health)
    app.get("/login")(_login_page)
    app.post("/login")(_login)
    app.post("/logout")(_logout)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for kind in (RatchetError, HTTPException):
        app.add_exception_handler(kind, _explain)
    app.add_exception_handler(Exception, _explain_fault)
    app.add_middleware(AccessMiddleware, access=access)
    return app


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _route(page: Page) -> Callable[[Request], Response]:
    def route(request: Request) -> Response:
        return site_of(request).show(request, f"{page.name}.html", page, page.read)

    return route


def _source(source: Read) -> Callable[[Request], Response]:
    def route(request: Request) -> Response:
        with site_of(request).reading() as reader:
            values = dict(source(reader, request.query_params))
        return Response(browser_json(values), media_type="application/json")

    return route


async def _feed(request: Request) -> Response:
    return StreamingResponse(
        site_of(request).feed.listen(),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _health() -> dict[str, str]:
    return {"status": "ok"}


def _login_page(request: Request) -> Response:
    return _login_form(request, local_path(request.query_params.get("next", "/")))


async def _login(request: Request, fields: Fields) -> Response:
    access: Access = request.app.state.access
    throttle: LoginThrottle = access.throttle
    address = request.client.host if request.client else ""
    wait_s = throttle.wait_s(address)
    wanted = local_path(fields.get("next", "/"))
    if wait_s > 0:
        text = f"Too many wrong passwords. Try again in {wait_s:.0f} s."
        return _login_form(request, wanted, text, 429, {"retry-after": f"{wait_s + 1:.0f}"})
    if not access.is_password(fields.get("password", "")):
        throttle.failed(address)
        log.warning("a wrong password from %s", printable(address))
        await asyncio.sleep(WRONG_PASSWORD_S)
        return _login_form(request, wanted, "That is not the password. It is in the file of web.password_file.", 401)
    throttle.succeeded(address)
    access.begin_session(request, is_logged_in=True)
    return RedirectResponse(wanted, status_code=303)


def _logout(request: Request) -> Response:
    access: Access = request.app.state.access
    access.begin_session(request, is_logged_in=False)
    return Response(status_code=204, headers={"hx-redirect": "/login"})


def _login_form(
    request: Request, wanted: str, problem: str = "", status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    template = site_of(request).templates.get_template("login.html")
    text = template.render(next=wanted, problem=problem, static="/static")
    return HTMLResponse(text, status_code=status, headers=headers)


def _explain(request: Request, error: Exception) -> Response:
    """One sentence about an error: on a page of its own, or beside what the viewer sees."""
    status, text = _described(error)
    if status >= 500 and not isinstance(error, RatchetError):
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    if wants_part(request) or request.method != "GET":
        return JSONResponse({"error": text}, status_code=status)
    if getattr(request.state, "is_stranger", True):
        return refusal(status, text)  # a page around it would show the menu and the model before the login
    site = site_of(request)
    template = site.templates.get_template("error.html")
    page = Page("error", "Error", request.url.path, "", lambda _reader, _query: {})
    shown = template.render(**site.frame(page), **site.around(request), url="", status=status, text=text)
    return HTMLResponse(shown, status_code=status)


def _explain_fault(request: Request, error: Exception) -> Response:
    """The same for an error that nobody foresaw: its answer is made outside of AccessMiddleware."""
    response = _explain(request, error)
    access: Access = request.app.state.access
    access.complete(request, response.headers)
    return response


def _described(error: Exception) -> tuple[int, str]:
    if isinstance(error, TransientError):
        return 503, f"{printable_text(error)} Nothing is lost; the page tries again."
    if isinstance(error, RatchetError):
        return 409, printable_text(error)
    if isinstance(error, HTTPException):
        return error.status_code, printable_text(error.detail)
    return 500, f"This is a fault of the page ({type(error).__name__}); its log has the traceback. Nothing was lost."
