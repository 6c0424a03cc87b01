"""Who may use the page: allowed hosts and origins, the login, signed sessions, and a token for every action.

A page on loopback needs no login. Any other address needs a password (``web.password_file``), so that nobody on the
network can roll a model back. Pages of other sites are kept out by three checks of which each suffices: the Host and
Origin headers, cookies that other sites do not send, and a token that only our pages know.

Paths are compared as the router gets them: a URL that is put together from headers may say something else.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ratchet.atomic_files import atomic_write
from ratchet.disk import home_errors
from ratchet.errors import SettingsError
from ratchet.file_lock import FileLock
from ratchet.settings.stores import read_secret
from ratchet.settings.web import WebSettings
from ratchet.web.address import require_password

COOKIE = "ratchet-session"
SESSION_S = 14 * 86_400
"""A login lasts two weeks."""
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/login", "/health")
"""Addresses that need no login, beside those below STATIC."""
STATIC = "/static/"
NO_ACTION = ("/login", "/logout")
"""What is sent to a page that is read-only, too."""
HOST = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE)
PORT = re.compile(r":([0-9]{1,5})$")
PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
"""A path of our own with its query: printable ASCII without backslashes, which browsers take for slashes."""
KEY_FILE = "session-key"
LOOPBACK = ("localhost", "127.0.0.1", "::1")

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Session:
    """A browser's session. ``csrf_token`` proves that a request comes from one of its own pages."""

    id: str
    is_logged_in: bool
    csrf_token: str


class Sessions:
    """Signs sessions with a key that outlives restarts. Another password ends all sessions."""

    def __init__(self, key: str, password: str | None):
        self._key = hashlib.sha256(f"{key}\0{password or ''}".encode()).digest()
        self._signer = URLSafeTimedSerializer(self._key, salt="ratchet session")

    def read(self, cookie: str | None) -> Session | None:
        """The session of a cookie; None if it is missing, forged, or too old."""
        try:
            found = self._signer.loads(cookie or "", max_age=SESSION_S)
            return self._session(str(found["id"]), bool(found["in"]))
        except (BadSignature, KeyError, TypeError):
            return None

    def begin(self, *, is_logged_in: bool) -> Session:
        return self._session(secrets.token_urlsafe(24), is_logged_in)

    def cookie(self, session: Session) -> str:
        text = self._signer.dumps({"id": session.id, "in": session.is_logged_in})
        return text if isinstance(text, str) else text.decode()

    def _session(self, session_id: str, is_logged_in: bool) -> Session:
        token = hmac.new(self._key, f"csrf {session_id}".encode(), hashlib.sha256).hexdigest()
        return Session(session_id, is_logged_in, token)


def session_key(folder: Path) -> str:
    """The key of this home, made once and readable by its owner alone."""
    path = folder / KEY_FILE
    with home_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock.acquire(folder / f"{KEY_FILE}.lock"):
            key = path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else ""
            if len(key) < 32:
                key = secrets.token_urlsafe(48)
                atomic_write(path, key, durable=True, mode=0o600)
    return key


class LoginThrottle:
    """Slows down guessing: after a few wrong passwords of an address, each doubles the wait before the next try."""

    FREE = 3
    MOST_DOUBLINGS = 9
    MOST_S = 300.0
    KEPT = 1_000

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}

    def wait_s(self, address: str) -> float:
        """How long the address has to wait before it may try again."""
        failures, last = self._failures.get(network(address), (0, 0.0))
        if failures <= self.FREE:
            return 0.0
        wait_s = min(self.MOST_S, 2.0 ** min(self.MOST_DOUBLINGS, failures - self.FREE))
        return max(0.0, last + wait_s - self._clock())

    def failed(self, address: str) -> None:
        failures, _ = self._failures.pop(network(address), (0, 0.0))
        self._failures[network(address)] = (failures + 1, self._clock())
        while len(self._failures) > self.KEPT:
            del self._failures[next(iter(self._failures))]

    def succeeded(self, address: str) -> None:
        self._failures.pop(network(address), None)


class Access:
    """The checks that every request passes, and the login."""

    def __init__(self, settings: WebSettings, folder: Path, clock: Callable[[], float] = time.monotonic):
        """``clock`` is that of the throttle.

        Raises SettingsError for an address that others reach without a password, and for a name that is none.
        """
        self._settings = settings
        self._names = {*LOOPBACK, settings.host.lower(), *map(allowed_name, filter(None, settings.allowed_hosts))}
        self.password = read_secret(settings.password_file) if settings.password_file else None
        require_password(settings.host, has_password=self.password is not None)
        self.sessions = Sessions(session_key(folder), self.password)
        self.throttle = LoginThrottle(clock)

    def check(self, request: Request) -> Response | None:
        """The refusal of a request, or None. Sets ``request.state.session``."""
        hosts = request.headers.getlist("host")
        host = hosts[0] if len(hosts) == 1 else ""
        if not self.is_allowed(host):
            named = " and ".join(repr(each[:200]) for each in hosts[:2]) or "no name"
            return refusal(
                421, f"this page is not served under {named}. Add the name to web.allowed_hosts, if it is yours."
            )
        path = str(request.scope["path"])
        session = self.sessions.read(request.cookies.get(cookie_name(host)))
        if self.password is not None and session is not None and not session.is_logged_in:
            session = None
        # The files of the pages may be kept by proxies, and so must not carry a session.
        request.state.is_new = session is None and not path.startswith(STATIC) and path != "/health"
        request.state.is_stranger = session is None and self.password is not None
        request.state.session = session or self.sessions.begin(is_logged_in=False)
        if (problem := self._foreign(request, host, path)) is not None:
            return refusal(403, problem)
        if request.state.is_stranger and path not in OPEN and not path.startswith(STATIC):
            return self._to_login(request)
        if self._settings.read_only and request.method not in SAFE and path not in NO_ACTION:
            return refusal(409, "this page is read-only (web.read_only), so it takes no actions.")
        return None

    def is_allowed(self, host: str) -> bool:
        """Whether the page is served under this name. A browser may send any; only ours are answered."""
        name = name_of_host(host)
        try:
            return name in self._names or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    def complete(self, request: Request, headers: MutableHeaders) -> None:
        """Give every response its headers, and a new browser its session."""
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        is_static = str(request.scope["path"]).startswith(STATIC)
        headers.setdefault("cache-control", "max-age=3600" if is_static else "no-store")
        if getattr(request.state, "is_new", False):
            headers.append("set-cookie", self._cookie(request, request.state.session))

    def begin_session(self, request: Request, *, is_logged_in: bool) -> None:
        """Replace the session of this browser by a new one."""
        request.state.session, request.state.is_new = self.sessions.begin(is_logged_in=is_logged_in), True

    def _cookie(self, request: Request, session: Session) -> str:
        made = Response()
        made.set_cookie(
            cookie_name(request.headers.get("host", "")),
            self.sessions.cookie(session),
            max_age=SESSION_S,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return made.headers["set-cookie"]

    def is_password(self, given: str) -> bool:
        if self.password is None:
            return False
        # Digests are of one length, so that the time says nothing about the length of the password.
        return hmac.compare_digest(*(hashlib.sha256(each.encode()).digest() for each in (given, self.password)))

    def _foreign(self, request: Request, host: str, path: str) -> str | None:
        """Why a request that comes from a page of others is refused; None for one of our own pages, or of a link."""
        is_own = request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        if request.method in SAFE:
            is_link = request.headers.get("sec-fetch-mode") == "navigate"
            return None if is_own or is_link else "a page of another site may link here, and load nothing."
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return f"pages of {origin[:200]!r} may not act here."
        if not is_own:
            return "a page of another site may not act here."
        if path == "/login":
            return None  # a page that is open for two weeks may hold the token of an earlier session
        given = request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(given.encode(), request.state.session.csrf_token.encode()):
            return "the request lacks the token of this page, or the page is of an earlier session: load it again."
        return None

    def _to_login(self, request: Request) -> Response:
        if request.method != "GET" or request.headers.get("hx-request") == "true":
            return Response(status_code=401, headers={"hx-redirect": "/login"})
        query = request.scope["query_string"].decode("latin-1")
        wanted = quote(str(request.scope["path"])) + (f"?{query}" if query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", status_code=303)


class AccessMiddleware:
    """Lets requests through that pass the checks of Access."""

    def __init__(self, app: ASGIApp, access: Access):
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a page has no web sockets, and they would pass no check
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        refused = self._access.check(request)

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._access.complete(request, MutableHeaders(scope=message))
            await send(message)

        await (refused or self._app)(scope, receive, send_completed)


def name_of_host(host: str) -> str:
    """``localhost`` of ``localhost:8000``, ``::1`` of ``[::1]:8000``; nothing of what is no host."""
    if HOST.fullmatch(host) is None:
        return ""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower()


def allowed_name(name: str) -> str:
    """The name as Host headers have it. Raises SettingsError for a URL or a pattern."""
    found = name_of_host(f"[{name}]" if name.count(":") > 1 and "[" not in name else name)
    if not found:
        raise SettingsError(f"web.allowed_hosts: {name!r} is no name of a host; it is like hub.example.org.")
    return found


def cookie_name(host: str) -> str:
    """The cookie of the page at this port: browsers send a cookie to every port of a host, where another run may be."""
    port = PORT.search(host)
    return f"{COOKIE}-{port[1]}" if port else COOKIE


def network(address: str) -> str:
    """Whose wrong passwords are counted together: an IPv4 address, or the /64 that one user of IPv6 has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found.packed, 64), strict=False))


def local_path(address: str) -> str:
    """An address of our own to go to after the login; the first page for any other."""
    return address if PATH.fullmatch(address) else "/"


def refusal(status: int, text: str) -> Response:
    """A refusal in one plain sentence."""
    return Response(f"ratchet: {text}\n", status_code=status, media_type="text/plain; charset=utf-8")
