from __future__ import annotations

import urllib.request
from urllib.error import HTTPError

import pytest
from ratchet.errors import TransientError
from ratchet.metrics.page import Page, PageServer
from ratchet.watchdog import Watchdog

from tests.support.workers import wait_until


def broken() -> Page:
    raise ValueError("no such thing")


ROUTES = {"/metrics": lambda: Page("text/plain", b"up 1\n"), "/broken": broken}


def get(server: PageServer, path: str, body: bytes | None = None) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", body, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_it_serves_its_routes_and_names_them_where_there_is_none() -> None:
    with PageServer("127.0.0.1", 0, ROUTES) as server:
        assert get(server, "/metrics?x=1") == (200, "up 1\n")
        status, text = get(server, "/other")
    assert status == 404
    assert "/metrics" in text


def test_a_page_that_fails_is_an_answer_and_the_server_goes_on() -> None:
    with PageServer("127.0.0.1", 0, ROUTES) as server:
        assert get(server, "/broken") == (500, "ValueError: no such thing\n")
        assert get(server, "/metrics")[0] == 200


def test_the_next_server_takes_a_later_port() -> None:
    with PageServer("127.0.0.1", 0, ROUTES) as first, PageServer("127.0.0.1", first.port, ROUTES) as second:
        assert second.port > first.port


def test_a_port_that_must_be_that_one_is_refused_while_it_is_taken() -> None:
    with (
        PageServer("127.0.0.1", 0, ROUTES) as first,
        pytest.raises(TransientError, match=str(first.port)),
    ):
        PageServer("127.0.0.1", first.port, ROUTES, ports_tried=1)


def test_one_that_never_started_can_be_closed() -> None:
    PageServer("127.0.0.1", 0, ROUTES).close()


def test_what_is_posted_reaches_its_receiver_which_may_refuse_it() -> None:
    got: list[bytes] = []

    def receive(body: bytes) -> None:
        if not body.startswith(b"{"):
            raise ValueError("no JSON")
        got.append(body)

    with PageServer("127.0.0.1", 0, ROUTES, {"/alerts": receive}) as server:
        assert get(server, "/alerts", b"{}")[0] == 200
        assert get(server, "/alerts", b"[]") == (400, "no JSON\n")
        assert get(server, "/other", b"{}")[0] == 404
    assert got == [b"{}"]


def test_its_thread_is_watched_while_it_serves() -> None:
    watchdog = Watchdog()
    server = PageServer("127.0.0.1", 0, ROUTES)
    server.watchdog = watchdog
    with server:
        assert watchdog.look() is None
        server._server.shutdown()
        wait_until(lambda: watchdog.problem is not None)
        assert watchdog.problem == "thread pages has ended, though nobody asked it to"
    server = PageServer("127.0.0.1", 0, ROUTES)
    with server:
        pass
    assert server.watchdog.problem is None
