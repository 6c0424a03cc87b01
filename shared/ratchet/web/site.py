"""What all pages share: the settings and the ledger, templates, and how a page is rendered, whole or as its part.

A browser first gets a whole page; when the ledger changes, it asks for the page's ``<main>`` again and merges it in.
That part holds nothing of the viewer, so it is rendered once for all viewers of the same state.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response

from ratchet import __version__
from ratchet.errors import PreconditionFailed
from ratchet.home import wake
from ratchet.ledger import Ledger, Transaction
from ratchet.settings import Settings
from ratchet.views.topics import Reader
from ratchet.views.view_model import model_name
from ratchet.web.rendering import environment
from ratchet.wording import size

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore
    from ratchet.web.feed import Feed
    from ratchet.web.jobs import Jobs

Query = Mapping[str, str]
"""The parameters of a page's address."""
Read = Callable[[Reader, Query], Mapping[str, Any]]
MOST_FORM_BYTES = 1_000_000
MOST_FIELDS = 1_000
MOST_REASON = 500
MOST_CACHED = 64
"""Rendered parts in the cache, each of another address."""
CACHE_BYTES = 4_000_000
"""Of all of them together; a larger one is not cached."""


@dataclass(frozen=True)
class Detail:
    """A page about one thing, such as a checkpoint, that belongs into the report too."""

    path: str
    template: str
    read: Read


def no_details(_reader: Reader) -> list[Detail]:
    return []


@dataclass(frozen=True)
class Page:
    """One page of the menu. ``read`` returns the variables of the template ``NAME.html``; ``summary`` is its subtitle.

    ``sources`` are the data of its charts, by address. ``router`` has its further addresses: details, actions,
    downloads. ``scripts`` are files of ``static`` that only it needs. A page that is not ``in_report`` makes no sense
    in a file, since it only acts; ``details`` are the pages below it that the file has too.
    """

    name: str
    title: str
    path: str
    summary: str
    read: Read
    sources: Mapping[str, Read] = field(default_factory=dict)
    router: APIRouter = field(default_factory=APIRouter)
    scripts: tuple[str, ...] = ()
    in_report: bool = True
    details: Callable[[Reader], Sequence[Detail]] = no_details


class Site:
    """The state of the web process. Its methods are called from threads of the server."""

    def __init__(self, settings: Settings, ledger: Ledger, pages: tuple[Page, ...]):
        self.settings, self.ledger, self.pages = settings, ledger, pages
        self.read_only = settings.web.read_only
        self._cache: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._rendering: dict[str, Lock] = {}
        self._lock = Lock()

    @cached_property
    def templates(self) -> Any:
        return environment()

    @cached_property
    def feed(self) -> Feed:
        from ratchet.web.feed import Feed

        return Feed(self.ledger, self.settings)

    @cached_property
    def jobs(self) -> Jobs:
        from ratchet.web.jobs import Jobs

        return Jobs(self.settings.web_home / "jobs")

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """One store for all requests: it remembers which files it has verified."""
        from ratchet.home import artifacts

        return artifacts(self.settings)

    def page(self, name: str) -> Page:
        return next(page for page in self.pages if page.name == name)

    @contextmanager
    def reading(self) -> Iterator[Reader]:
        """One consistent state of the ledger."""
        with self.ledger.read() as session:
            yield Reader(self.settings, self.ledger, session)

    @contextmanager
    def writing(self, *wakes: str) -> Iterator[Transaction]:
        """A transaction of an action; afterwards these systems are woken, and viewers see the change.

        Raises PreconditionFailed on a page that is read-only.
        """
        self.require_actions()
        with self.ledger.write() as tx:
            yield tx
        wake(self.settings, *wakes)
        self.feed.poke()

    def require_actions(self) -> None:
        """Raise PreconditionFailed on a page that is read-only."""
        if self.read_only:
            raise PreconditionFailed("this page is read-only (web.read_only), so it takes no actions.")

    def show(self, request: Request, template: str, page: Page, read: Read, *, cached: bool = True) -> Response:
        """The page, or its ``<main>`` alone for a request of htmx. ``read`` is called unless that is in the cache.

        A page that shows more than the ledger, such as a job, must not be ``cached``.
        """
        if not wants_part(request):
            return HTMLResponse(self.whole(request, template, page, read))

        def render() -> bytes:
            return self._rendered(template, page, read, request, {"layout": "part.html"}).encode()

        if not cached:
            return HTMLResponse(render())
        return HTMLResponse(self._current(str(request.url), render))

    def _current(self, key: str, render: Callable[[], bytes]) -> bytes:
        """The part as of the state of now. All who ask at the same moment get what is rendered for the first."""
        self.feed.touch()
        version = self.feed.version
        with self._lock:
            rendering = self._rendering.setdefault(key, Lock())
        with rendering:
            with self._lock:
                found = self._cache.get(key)
            if found is not None and found[0] == version:
                return found[1]
            try:
                text = render()
            finally:
                self._rendering.pop(key, None)
            if self.feed.listeners:  # without them nothing in the cache is known to be current
                with self._lock:
                    self._store(key, version, text)
        return text

    def _store(self, key: str, version: int, text: bytes) -> None:
        self._cache.pop(key, None)
        self._cache[key] = (version, text)
        while len(self._cache) > MOST_CACHED or sum(len(each) for _, each in self._cache.values()) > CACHE_BYTES:
            self._cache.popitem(last=False)

    def whole(self, request: Request, template: str, page: Page, read: Read) -> str:
        return self._rendered(template, page, read, request, self.around(request))

    def around(self, request: Request) -> dict[str, Any]:
        """Variables of what surrounds a whole page, which depend on the viewer."""
        has_login = self.settings.web.password_file is not None
        return {"layout": "layout.html", "csrf": request.state.session.csrf_token, "has_login": has_login}

    def _rendered(self, template: str, page: Page, read: Read, request: Request, around: Mapping[str, Any]) -> str:
        began = time.thread_time()
        try:
            with self.reading() as reader:
                version = self.feed.version_for(reader.session)
                found = read(reader, request.query_params)
                address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                variables = {**self.frame(page), "url": address, "feed_version": version, **around, **found}
                text: str = self.templates.get_template(template).render(variables)
            return text
        finally:
            self.feed.add_render_time(time.thread_time() - began)

    def frame(self, page: Page) -> dict[str, Any]:
        """Variables of every template."""
        return {
            "page": page,
            "pages": self.pages,
            "read_only": self.read_only,
            "links": self.settings.web.links,
            "alias": self.settings.serving.alias,
            "model": model_name(self.settings.model.path),
            "model_path": self.settings.model.path,
            "app_version": __version__,
            "static": "/static",
            "in_file": False,
        }


def wants_part(request: Request) -> bool:
    """Whether htmx asks for the part of a page that it merges in."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-history-restore-request") != "true"


def site_of(request: Request) -> Site:
    """The site that a route belongs to."""
    site: Site = request.app.state.site
    return site


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form as a browser sends them. Raises PreconditionFailed for more than a form ever holds."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            raise PreconditionFailed(f"a form holds {size(MOST_FORM_BYTES)} at most; add a file under Data instead.")
    try:
        text = body.decode(errors="replace")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError as error:
        raise PreconditionFailed(f"a form has {MOST_FIELDS} fields at most.") from error


Fields = Annotated[dict[str, str], Depends(fields_of)]
"""The fields of the form that a request sends."""


def reason_of(fields: Mapping[str, str]) -> str:
    """The reason that an operator gave. Raises PreconditionFailed for none."""
    reason = " ".join(fields.get("reason", "").split())
    if not reason:
        raise PreconditionFailed("give a reason; it is kept in the ledger.")
    return reason[:MOST_REASON]


def done(text: str, *, refresh: bool = True) -> Response:
    """The answer to an action: a message for the viewer, after which the page shows the new state."""
    events: dict[str, Any] = {"told": text} | ({"ledger": None} if refresh else {})
    # A header holds Latin-1 only, so other characters are escaped by JSON.
    return Response(status_code=204, headers={"hx-trigger": json.dumps(events)})
