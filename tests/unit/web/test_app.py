"""Every answer has the headers that keep scripts out; an error shows no details; forms are limited."""

from __future__ import annotations

from typing import Any

import pytest
from ratchet.views.topics import Reader
from ratchet.web.site import MOST_FIELDS, MOST_FORM_BYTES, Page, Query

from tests.support.page_under_test import PASSWORD, OpenPage, home, ledger, log_in, open_page

__all__ = ["home", "ledger", "open_page"]


def broken(_reader: Reader, _query: Query) -> dict[str, Any]:
    raise ZeroDivisionError("<script>secret</script>")


BROKEN = Page("now", "Now", "/", "", broken)


def test_every_answer_has_the_headers_that_keep_scripts_out(open_page: OpenPage) -> None:
    page, faulty = open_page(PASSWORD), open_page(pages=(BROKEN,))
    inside = page.browser()
    log_in(inside)
    answers = {
        "page": inside.get("/"),
        "part": inside.get("/", headers={"hx-request": "true"}),
        "missing": inside.get("/nothing"),
        "file": inside.get("/static/app.js"),
        "login": page.browser().get("/login"),
        "to the login": page.browser().get("/"),
        "wrong name": page.browser().get("/", headers={"host": "evil.example"}),
        "no token": inside.post("/logout"),
        "fault": faulty.browser().get("/"),
        "fault in a part": faulty.browser().get("/", headers={"hx-request": "true"}),
    }
    for name, answer in answers.items():
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy, name
        assert "frame-ancestors 'none'" in policy, name
        assert "unsafe" not in policy, name
        assert answer.headers["x-content-type-options"] == "nosniff", name
        assert answer.headers["referrer-policy"] == "same-origin", name
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", name
        assert answer.headers["cache-control"] == ("max-age=3600" if name == "file" else "no-store"), name
        assert "server" not in answer.headers, name
    assert (answers["missing"].status_code, answers["fault"].status_code) == (404, 500)


def test_an_unforeseen_error_says_what_failed_and_no_more(open_page: OpenPage) -> None:
    browser = open_page(pages=(BROKEN,)).browser()
    for headers in ({}, {"hx-request": "true"}):
        answer = browser.get("/", headers=headers)
        assert answer.status_code == 500
        assert "ZeroDivisionError" in answer.text
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize("body", [b"a=" + b"x" * MOST_FORM_BYTES, b"&a=" * (MOST_FIELDS + 2)])
def test_a_form_of_endless_length_is_refused(body: bytes, path: str, open_page: OpenPage) -> None:
    page = open_page(PASSWORD)
    answer = page.browser().post(path, content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == (409 if path == "/login" else 403)
