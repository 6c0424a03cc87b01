"""Pages follow the ledger: through a lost connection, in many browsers at once, and in tabs that nobody looks at."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from playwright.sync_api import expect
from ratchet.ledger import Ledger
from ratchet.ledger import operator_actions as actions
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import BlockRow, CheckpointRow
from ratchet.settings import Settings
from ratchet.web.app import THREADS
from sqlalchemy import select

from tests.support.pages import Served
from tests.support.visits import Visit, until

pytestmark = pytest.mark.slow

VIEWERS = 50
PATIENCE_S = 120.0
CONNECTION = r"net::ERR_|Failed to fetch"
"""What browsers report of a server that is away."""
REFRESHED = "performance.getEntriesByType('resource').some((each) => each.initiatorType === 'xmlhttprequest')"
"""The feed has begun, and the page has asked for what its first event tells of."""


@pytest.fixture(scope="module")
def served(template_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page over a home that tests change; none of them needs what another has done."""
    served = Served(shutil.copytree(template_home, tmp_path_factory.mktemp("changed") / "home"))
    yield served
    served.stop()


def freeze(home: Path, reason: str) -> None:
    """A change of the ledger that the first page shows, made by another process than the page."""
    with closing(Ledger(Settings(home=home).ledger_url)) as ledger, ledger.write() as tx:
        actions.freeze(tx, reason)


def test_a_page_says_that_its_server_is_away_and_catches_up_afterwards(served: Served, visit: Visit) -> None:
    tab = visit(served.url, expected=(CONNECTION,))
    connection, main = tab.locator("#connection"), tab.locator("main")
    expect(connection).to_have_text("")
    served.kill()
    expect(connection).to_contain_text("Connection lost")
    freeze(served.home, "while nobody was told")
    served.start()
    expect(connection).to_have_text("")
    expect(main).to_contain_text("while nobody was told")


def test_what_another_process_changes_is_shown_without_a_reload(served: Served, visit: Visit) -> None:
    tab = visit(served.url)
    tab.evaluate("window.isSame = true")
    freeze(served.home, "from elsewhere")
    expect(tab.locator("main")).to_contain_text("from elsewhere")
    assert tab.evaluate("window.isSame")


def test_a_button_acts_on_what_the_page_shows_after_a_change(served: Served, visit: Visit) -> None:
    """The fields of its form that nobody sees are merged in with the rest."""
    tab = visit(f"{served.url}/live")
    with closing(served.ledger) as ledger, ledger.write() as tx:
        before = tx.session.get_one(CheckpointRow, serving(tx.session).desired_id)
        others = select(CheckpointRow).where(CheckpointRow.state == "saved", CheckpointRow.id != before.id)
        others = others.where(CheckpointRow.weights.not_in(select(BlockRow.weights)))
        actions.deploy(tx, tx.session.scalars(others).first() or pytest.fail("no other"), "by hand", force=True)
    tab.get_by_role("button", name=f"Roll back to #{before.ordinal}").click()
    dialog = tab.locator("dialog#rollback")
    dialog.get_by_label("Reason").fill("it is worse")
    dialog.get_by_role("button", name="Roll back", exact=True).click()
    expect(tab.locator("#told")).to_contain_text(f"#{before.ordinal} will be live again")


def test_a_hidden_tab_asks_for_nothing_and_is_current_when_it_is_shown(served: Served, visit: Visit) -> None:
    tab = visit(served.url)
    until(tab, REFRESHED)
    ended: list[str] = []
    tab.on("requestfailed", lambda request: ended.append(urlsplit(request.url).path))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(urlsplit(request.url).path))
    hide = """(isHidden) => {
      Object.defineProperty(document, "hidden", {value: isHidden, configurable: true});
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with tab.expect_event("requestfailed"):
        tab.evaluate(hide, True)
    assert ended == ["/feed"]
    freeze(served.home, "while nobody looked")
    tab.wait_for_timeout(3_000)
    assert asked == []
    tab.evaluate(hide, False)
    expect(tab.locator("main")).to_contain_text("while nobody looked")
    assert "/feed" in asked


def test_many_viewers_get_the_event_of_a_change_from_one_reader(served: Served, visit: Visit) -> None:
    page = psutil.Process(served.pid)
    tabs = [visit(served.url) for _ in range(3)]
    are_there = Event()
    with ThreadPoolExecutor(1) as pool:  # a browser's own loop runs in this thread
        told = pool.submit(asyncio.run, listen_all(served.url, are_there))
        assert are_there.wait(PATIENCE_S)
        freeze(served.home, "for all to see")
        versions = told.result(PATIENCE_S)
    assert len(versions) == VIEWERS
    assert all(first < second for first, second in versions)
    for tab in tabs:
        expect(tab.locator("main")).to_contain_text("for all to see")
    files = [file.path for file in page.open_files() if file.path.endswith("ledger.db")]
    assert len(files) <= THREADS + 2, "a connection for each viewer"


async def listen_all(url: str, are_there: Event) -> list[tuple[int, int]]:
    """The versions of the first two events of each viewer."""
    connected = 0

    async def one(client: httpx.AsyncClient) -> tuple[int, int]:
        nonlocal connected
        versions: list[int] = []
        async with client.stream("GET", "/feed") as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and "version" in (found := json.loads(line[6:])):
                    versions.append(found["version"])
                    if len(versions) == 1:
                        connected += 1
                        if connected == VIEWERS:
                            are_there.set()
                    elif versions[-1] > versions[0]:
                        break
        return versions[0], versions[-1]

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, limits=limits, trust_env=False) as client:
        return list(await asyncio.gather(*(one(client) for _ in range(VIEWERS))))


def test_visitors_who_send_half_a_request_keep_nobody_waiting(served: Served) -> None:
    parts = urlsplit(served.url)
    begun = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\npassword=",
        b"POST /live/freeze HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nrea",
        b"GET /static/app.js HTTP/1.1\r\n",
        b"",
    ]
    sockets = []
    try:
        for _ in range(20):
            for text in begun:
                sockets.append(socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE_S))
                sockets[-1].sendall(text)
        for path in ("/health", "/", "/live", "/static/app.js"):
            assert httpx.get(served.url + path, timeout=PATIENCE_S, trust_env=False).status_code == 200
    finally:
        for each in sockets:
            each.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [(b"GET / HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n", 400),
     (b"GET http://localhost/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421), (b"GET / HTTP/1.0\r\n\r\n", 421),
     (b"GET /\r\n\r\n", 400), (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
     (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
     (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", 400),
     (b"GET /%00%ff%c0%ae/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
     (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 403),
     (b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 200)],
)  # fmt: skip
def test_what_is_no_request_is_refused(sent: bytes, status: int, synthetic: Served) -> None:
    parts = urlsplit(synthetic.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        answer = connection.recv(1_000)
    assert int(answer.split()[1]) == status
    assert httpx.get(f"{synthetic.url}/health", timeout=PATIENCE_S, trust_env=False).status_code == 200
