"""Requests of other sites, or under another host name, change nothing, on any route that takes a POST.

The routes are those of the application, so that one that is added later is tested too.
"""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.errors import RatchetError, SettingsError
from ratchet.ledger import Ledger
from ratchet.ledger.tables import DeploymentRow, OutboxRow, ServingRow
from ratchet.web.access import name_of_host
from sqlalchemy import func, select

from tests.support.page_under_test import HERE, PASSWORD, OpenPage, home, ledger, open_page, token

__all__ = ["home", "ledger", "open_page"]


def state(ledger: Ledger) -> tuple[Any, ...]:
    """What no refused request may change."""
    with ledger.read() as session:
        frozen = session.scalars(select(ServingRow.frozen_reason)).all()
        counts = [session.scalar(select(func.count()).select_from(row)) for row in (DeploymentRow, OutboxRow)]
    return (*frozen, *counts)


def test_no_route_acts_without_the_token_of_its_page(open_page: OpenPage, ledger: Ledger) -> None:
    page = open_page()
    stranger = page.browser()
    theirs, before = token(stranger), state(ledger)
    routes = [path for path in page.post_routes() if path != "/login"]
    assert len(routes) > 1
    for path in routes:
        browser = page.browser()
        browser.get("/")
        for sent in ({}, {"x-csrf-token": ""}, {"x-csrf-token": theirs}, {"x-csrf-token": "é".encode("latin-1")}):
            answer = browser.post(path, headers=sent, data={"reason": "because", "x-csrf-token": token(browser)})
            assert answer.status_code == 403, path
            assert "token" in answer.text
    assert state(ledger) == before


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:9000"}, {"origin": "http://["},
     {"origin": "http://localhost:8000.evil.example"}, {"origin": "http://evil@localhost:8000"}, {"origin": ""},
     {"origin": "ftp://localhost:8000"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
     {"origin": HERE, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}],
)  # fmt: skip
def test_no_route_acts_for_pages_of_other_sites(headers: dict[str, str], open_page: OpenPage, ledger: Ledger) -> None:
    page, before = open_page(), state(ledger)
    browser = page.browser()
    sent = {"x-csrf-token": token(browser), **headers}
    for path in page.post_routes():
        answer = browser.post(path, headers=sent, data={"reason": "because", "password": PASSWORD})
        assert answer.status_code == 403, path
    assert state(ledger) == before


@pytest.mark.parametrize("origin", [HERE, HERE.upper(), "https://localhost:8000"])
def test_our_own_pages_act(origin: str, open_page: OpenPage) -> None:
    browser = open_page().browser(origin=origin)
    browser.headers["sec-fetch-site"] = "same-origin"
    assert browser.post("/logout", headers={"x-csrf-token": token(browser)}).status_code == 204


def test_other_sites_link_here_and_load_nothing(open_page: OpenPage) -> None:
    browser = open_page().browser()
    for site in ("cross-site", "same-site"):
        assert browser.get("/", headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 200
        for mode in ("no-cors", "cors", "websocket"):
            answer = browser.get("/curves.json", headers={"sec-fetch-site": site, "sec-fetch-mode": mode})
            assert answer.status_code == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "FETCH"])
def test_other_methods_are_no_way_around_the_token(method: str, open_page: OpenPage) -> None:
    page = open_page()
    for path in page.post_routes():
        assert page.browser().request(method, path).status_code in (403, 405)
        overridden = {"x-http-method-override": "POST", "x-http-method": "POST"}
        answer = page.browser().get(path, params={"_method": "POST"}, headers=overridden)
        assert "hx-trigger" not in answer.headers


def test_a_page_that_is_read_only_refuses_every_action(open_page: OpenPage, ledger: Ledger) -> None:
    page, before = open_page(read_only=True), state(ledger)
    browser = page.browser()
    sent = {"x-csrf-token": token(browser)}
    for path in page.post_routes():
        if path not in ("/login", "/logout"):
            answer = browser.post(path, headers=sent, data={"reason": "because"})
            assert (answer.status_code, "read-only" in answer.text) == (409, True), path
    assert state(ledger) == before
    with pytest.raises(RatchetError, match="read-only"):
        page.app.state.site.require_actions()


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "localhost@evil.example", "evil.example#localhost",
     "localhost/login?", "localhost:8000/login?", "localhost\\evil.example", "evil@localhost", "localhost:80:80", "",
     "localhost:x", "127.0.0.1.nip.io", "[::1", "::1]", "192.168.1.10", "localhost,evil.example", "0x7f.1"],
)  # fmt: skip
def test_a_name_that_is_not_ours_is_refused(host: str, open_page: OpenPage) -> None:
    page = open_page(PASSWORD)
    for path in ("/", "/login", "/health", "/static/style.css"):
        answer = page.browser().get(path, headers={"host": host})
        assert (answer.status_code, "web.allowed_hosts" in answer.text) == (421, True), path


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.1.2.3", "[::1]:8000", "hub.local",
                                  "hub.example.org:443", "[fd00::7]"])  # fmt: skip
def test_loopback_names_and_those_of_the_setting_are_ours(host: str, open_page: OpenPage) -> None:
    named = ("Hub.Example.org", "hub.local:8000", "fd00::7", "")
    assert open_page(allowed_hosts=named).browser().get("/health", headers={"host": host}).status_code == 200


def test_two_names_in_one_request_are_refused(open_page: OpenPage) -> None:
    both = [("host", "localhost"), ("host", "evil.example")]
    assert open_page().browser().request("GET", "/health", headers=both).status_code == 421


@pytest.mark.parametrize("name", ["https://hub.example.org", "*", "*.example.org", "hub example", "/"])
def test_a_setting_that_is_no_name_is_an_error(name: str, open_page: OpenPage) -> None:
    with pytest.raises(SettingsError, match=r"web\.allowed_hosts"):
        open_page(allowed_hosts=(name,))


def test_names_of_hosts() -> None:
    assert [name_of_host(each) for each in ("A.b:80", "[::1]:80", "a b", "a\n", "a:")] == ["a.b", "::1", "", "", ""]


def test_an_address_that_others_reach_needs_a_password(open_page: OpenPage) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.10", "hub.example.org"):
        with pytest.raises(SettingsError, match=r"web\.password_file, or bind 127\.0\.0\.1"):
            open_page(host=host)
        open_page(PASSWORD, host=host)
    with pytest.raises(SettingsError, match="is empty"):
        open_page("", host="0.0.0.0")
