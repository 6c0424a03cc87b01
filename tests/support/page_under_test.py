"""The Control Room with its login and its other checks on visitors, for tests that send it what it must refuse.

A file of tests imports the fixtures ``home``, ``ledger`` and ``open_page``; its tests share one ledger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.settings import Settings
from ratchet.web.app import build_app

from tests.support.story import write_story
from tests.support.viewer import action_headers

HERE = "http://localhost:8000"
PASSWORD = "correct horse battery staple"


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class PageUnderTest:
    """The page of a home as its visitors find it."""

    def __init__(self, app: FastAPI, home: Path, clock: Clock, address: str = HERE):
        self.app, self.home, self.clock, self._address = app, home, clock, address

    def browser(self, **headers: str) -> TestClient:
        """A browser without cookies."""
        return TestClient(
            self.app, self._address, follow_redirects=False, raise_server_exceptions=False, headers=headers
        )

    def post_routes(self) -> list[str]:
        """Every address that takes more than GET, with values for the names in it."""
        found = [
            (method, re.sub(r"\{[^}]+\}", "1", route.path))
            for route in every_route(self.app)
            for method in route.methods - {"GET", "HEAD", "OPTIONS"}
        ]
        assert {method for method, _ in found} == {"POST"}
        return sorted(path for _, path in found)


def every_route(app: FastAPI) -> Iterator[APIRoute]:
    """Those of the application, and of the routers of its pages."""
    yield from (route for route in app.routes if isinstance(route, APIRoute))
    for page in app.state.site.pages:
        yield from (route for route in page.router.routes if isinstance(route, APIRoute))


OpenPage = Callable[..., PageUnderTest]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access") / "run"


@pytest.fixture(scope="module")
def ledger(home: Path) -> Iterator[Ledger]:
    """One for all tests, since none of them may change it."""
    made = Ledger(Settings(home=home).ledger_url)
    migrate(made)
    with made.write() as tx:
        write_story(tx)
    yield made
    made.close()


@pytest.fixture
def open_page(home: Path, ledger: Ledger) -> OpenPage:
    """``open_page(password=None, **web)`` is the page of the home with these settings of the section ``web``."""

    def opened(password: str | None = None, address: str = HERE, pages: Any = None, **web: Any) -> PageUnderTest:
        if password is not None:
            (home / "password").write_text(f"{password}\n")
            web["password_file"] = home / "password"
        clock, settings = Clock(), Settings(home=home, web=web)
        more = {} if pages is None else {"pages": pages}
        return PageUnderTest(build_app(settings, ledger, clock=clock, **more), home, clock, address)

    return opened


def log_in(browser: TestClient, password: str = PASSWORD, **fields: str) -> Any:
    return browser.post("/login", data={"password": password, **fields})


def token(browser: TestClient) -> str:
    """What the pages of this browser send with every action."""
    return action_headers(browser.get("/").text)["x-csrf-token"]
