"""The login: what a stranger sees, how fast passwords can be guessed, and where a browser is led afterwards."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ratchet.web.access import LoginThrottle, local_path, network

from tests.support.page_under_test import (
    HERE,
    PASSWORD,
    Clock,
    OpenPage,
    every_route,
    home,
    ledger,
    log_in,
    open_page,
    token,
)

__all__ = ["home", "ledger", "open_page"]


def test_without_a_password_a_browser_here_sees_and_acts(open_page: OpenPage) -> None:
    browser = open_page().browser()
    assert browser.get("/").status_code == 200
    assert browser.post("/logout", headers={"x-csrf-token": token(browser)}).status_code == 204


def test_a_stranger_sees_the_login_and_nothing_else(open_page: OpenPage) -> None:
    page = open_page(PASSWORD)
    for route in every_route(page.app):
        if "GET" in route.methods and route.path not in ("/login", "/health"):
            path = re.sub(r"\{[^}]+\}", "1", route.path)
            answer = page.browser().get(path)
            assert (answer.status_code, answer.text) == (303, ""), path
            assert answer.headers["location"].startswith("/login?next=%2F")
    shown = page.browser().get("/login")
    assert shown.status_code == 200
    assert "tiny" not in shown.text
    assert page.browser().get("/health").json() == {"status": "ok"}
    assert page.browser().get("/static/style.css").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/loginx", "/login/", "/login/../data", "/healthz", "/health/x", "/static", "/Login", "/.//login", "//login",
     "/login%2f..%2fdata", "/%2flogin", "/static%2f..%2fdata", "/data?x=/login", "/data/;/login", "/static\\..\\data"],
)  # fmt: skip
def test_nothing_beside_the_open_addresses_is_open(path: str, open_page: OpenPage) -> None:
    answer = open_page(PASSWORD).browser().get(HERE + path)
    assert answer.status_code in (303, 307, 404)
    assert "menu" not in answer.text
    assert "csrf" not in answer.text


@pytest.mark.parametrize(
    "path", ["/static/nothing", "/static/../data", "/static/%2e%2e/app.py", "/static/../access.py"]
)
def test_a_missing_file_tells_a_stranger_nothing(path: str, open_page: OpenPage) -> None:
    answer = open_page(PASSWORD).browser().get(HERE + path)
    assert answer.status_code in (303, 404)
    assert "menu" not in answer.text
    assert "def " not in answer.text


def test_the_right_password_leads_to_the_page_that_was_asked_for(open_page: OpenPage) -> None:
    browser = open_page(PASSWORD).browser()
    asked = browser.get("/checkpoints?sort=loss&of=a+b%23")
    login = browser.get(asked.headers["location"])
    wanted = re.search(r'name="next" value="([^"]+)"', login.text)
    assert wanted is not None
    answer = log_in(browser, next=wanted[1].replace("&amp;", "&"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/checkpoints?sort=loss&of=a+b%23")
    assert browser.get("/").status_code == 200
    assert browser.get("/login").status_code == 200


@pytest.mark.parametrize("given", ["", "wrong", PASSWORD.upper(), PASSWORD + "\0", "\udcff".encode(errors="replace")])
def test_a_wrong_password_is_refused(given: Any, open_page: OpenPage) -> None:
    browser = open_page(PASSWORD).browser()
    answer = log_in(browser, given)
    assert answer.status_code == 401
    assert "That is not the password" in answer.text
    assert browser.get("/").status_code == 303


def test_after_several_wrong_passwords_even_the_right_one_has_to_wait(open_page: OpenPage) -> None:
    page = open_page(PASSWORD)
    browser = page.browser()
    answers = [log_in(browser, "wrong").status_code for _ in range(5)]
    assert answers == [401, 401, 401, 401, 429]
    refused = log_in(browser)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 3
    page.clock.now += int(refused.headers["retry-after"])
    assert log_in(browser).status_code == 303
    page.clock.now += 1
    assert log_in(page.browser(), "wrong").status_code == 401, "the right password has ended the count"


def test_the_wait_doubles_and_ends() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    waits = []
    for _ in range(2_000):
        throttle.failed("192.0.2.1")
        waits.append(throttle.wait_s("192.0.2.1"))
    assert waits[:7] == [0, 0, 0, 2, 4, 8, 16]
    assert waits[-1] == LoginThrottle.MOST_S
    assert throttle.wait_s("192.0.2.2") == 0
    for n in range(2 * LoginThrottle.KEPT):
        throttle.failed(f"host {n}")
    assert throttle.wait_s("192.0.2.1") == 0


def test_addresses_of_one_network_share_their_wrong_passwords() -> None:
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9") != network("2001:db8:1:3::1")
    assert network("192.0.2.1") != network("192.0.2.2")
    assert network("") == ""


def test_a_page_without_a_password_has_no_login_to_guess(open_page: OpenPage) -> None:
    assert log_in(open_page().browser(), "").status_code == 401


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "/\n/evil",
     "javascript:alert(1)", " //evil.example", "/\r\nset-cookie: a=b", "evil.example", "", "/a\\b", "//[", "/é"],
)  # fmt: skip
def test_the_login_leads_to_no_other_site(wanted: str, open_page: OpenPage) -> None:
    assert local_path(wanted) == "/"
    browser = open_page(PASSWORD).browser()
    assert 'name="next" value="/"' in browser.get("/login", params={"next": wanted}).text
    answer = log_in(browser, next=wanted)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert len(answer.headers.get_list("set-cookie")) == 1


@pytest.mark.parametrize("wanted", ["/", "/checkpoints/7", "/data?task=a%2Fb&page=2#rows", "/systems/x;y=(1)"])
def test_the_login_leads_to_our_pages(wanted: str) -> None:
    assert local_path(wanted) == wanted
