"""Sessions: cookies that nobody else can make or read, how long they last, and what ends them."""

from __future__ import annotations

import hashlib
import stat
import time
from pathlib import Path
from typing import Any

from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from ratchet.settings import Settings
from ratchet.web.access import COOKIE, SESSION_S, Access, cookie_name

from tests.support.page_under_test import PASSWORD, OpenPage, home, ledger, log_in, open_page, token

__all__ = ["home", "ledger", "open_page"]


def test_the_cookie_is_kept_from_scripts_and_other_sites(open_page: OpenPage) -> None:
    cookie = log_in(open_page(PASSWORD).browser()).headers["set-cookie"]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/", f"max-age={SESSION_S}"} == parts
    secure = log_in(open_page(PASSWORD, "https://localhost").browser()).headers["set-cookie"]
    assert "Secure" in secure


def test_the_login_begins_a_new_session(open_page: OpenPage) -> None:
    browser = open_page(PASSWORD).browser()
    browser.get("/login")
    before = dict(browser.cookies)
    log_in(browser)
    assert before.keys() == dict(browser.cookies).keys()
    assert before != dict(browser.cookies)


def test_two_runs_on_one_machine_do_not_take_each_others_cookies() -> None:
    assert cookie_name("localhost:8000") != cookie_name("localhost:8001")
    assert cookie_name("[::1]:8000") == cookie_name("localhost:8000")
    assert cookie_name("hub.example.org") == COOKIE


def test_files_that_proxies_may_keep_carry_no_session(open_page: OpenPage) -> None:
    for path in ("/static/style.css", "/health"):
        assert "set-cookie" not in open_page().browser().get(path).headers


def test_a_cookie_that_was_not_made_here_is_none(open_page: OpenPage) -> None:
    page = open_page(PASSWORD)
    browser = page.browser()
    log_in(browser)
    name, real = next(iter(dict(browser.cookies).items()))
    anonymous = page.browser()
    anonymous.get("/login")
    payload, _, signature = real.partition(".")
    key = session_key(page.home)
    forged = [
        "", "x", real[:-1], real.upper(), f"{payload}.", f".{signature}", f".{real}", "=" * 5_000,
        anonymous.cookies[name],
        signed("another key", PASSWORD, {"id": "a", "in": True}),
        signed(key, "another password", {"id": "a", "in": True}),
        signed(key, PASSWORD, {"id": "a", "in": False}),
        signed(key, PASSWORD, {"in": True}),
        signed(key, PASSWORD, ["id", "in"]),
        signed(key, PASSWORD, {"id": "a", "in": True}, salt="another use"),
        signed(key, PASSWORD, {"id": "a", "in": True}, age_s=SESSION_S + 60),
        signed(key, PASSWORD, {"id": "a", "in": True}, age_s=-3_600),
    ]  # fmt: skip
    for cookie in forged:
        assert page.browser(cookie=f"{name}={cookie}").get("/").status_code == 303, cookie
    genuine = signed(key, PASSWORD, {"id": "a", "in": True}, age_s=SESSION_S - 60)
    assert page.browser(cookie=f"{name}={genuine}").get("/").status_code == 200


def session_key(home: Path) -> str:
    file = Settings(home=home).web_home / "session-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_text()


def signed(key: str, password: str, session: Any, age_s: float = 0.0, salt: str = "ratchet session") -> str:
    """A cookie as the page makes it, from another time or with another key."""

    class Signer(TimestampSigner):
        def get_timestamp(self) -> int:
            return int(time.time() - age_s)

    secret = hashlib.sha256(f"{key}\0{password}".encode()).digest()
    return str(URLSafeTimedSerializer(secret, salt=salt, signer=Signer).dumps(session))


def test_another_password_ends_all_sessions_and_a_restart_ends_none(open_page: OpenPage) -> None:
    browser = open_page(PASSWORD).browser()
    log_in(browser)
    cookie = "; ".join(f"{name}={value}" for name, value in dict(browser.cookies).items())
    assert open_page(PASSWORD).browser(cookie=cookie).get("/").status_code == 200
    assert open_page("another").browser(cookie=cookie).get("/").status_code == 303
    assert open_page(None).browser(cookie=cookie).get("/").status_code == 200, "no login, and so a new session"


def test_after_the_log_out_there_is_the_login_again(open_page: OpenPage) -> None:
    browser = open_page(PASSWORD).browser()
    log_in(browser)
    answer = browser.post("/logout", headers={"x-csrf-token": token(browser)})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/login")
    assert browser.get("/").status_code == 303


def test_a_page_that_refreshes_itself_is_sent_to_the_login(open_page: OpenPage) -> None:
    browser = open_page(PASSWORD).browser()
    for answer in (browser.get("/", headers={"hx-request": "true"}), browser.post("/logout")):
        assert (answer.status_code, answer.headers.get("hx-redirect")) in ((401, "/login"), (403, None))
    assert browser.get("/", headers={"hx-request": "true"}).headers["hx-redirect"] == "/login"


def test_the_session_key_is_made_once(open_page: OpenPage) -> None:
    page = open_page()
    key = session_key(page.home)
    assert len(key) >= 32
    settings = Settings(home=page.home)
    Access(settings.web, settings.web_home)
    assert session_key(page.home) == key
