"""A viewer of the Control Room without a browser: gets pages, sends forms with their token, keeps its cookie."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from httpx import Response
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.web.app import build_app

_HEADERS = re.compile(r"hx-headers='([^']*)'")


def action_headers(page: str) -> dict[str, str]:
    """The headers that a page's HTML has its actions sent with, the token against forged requests; empty if none."""
    found = _HEADERS.search(page)
    headers: dict[str, str] = json.loads(unescape(found[1])) if found is not None else {}
    return headers


class Viewer:
    """A viewer of a ledger's page. ``web`` are settings of that section."""

    def __init__(self, home: Path, ledger: Ledger, settings: Settings | None = None, **web: Any):
        base = settings or Settings(home=home)
        self.settings = base.model_copy(update={"web": base.web.model_copy(update=web)})
        self.app = build_app(self.settings, ledger)
        self.client = TestClient(self.app, base_url="http://localhost", raise_server_exceptions=False)
        self._headers: dict[str, str] = {}

    def get(self, path: str, status: int = 200) -> str:
        """The text of a page."""
        response = self.client.get(path)
        assert response.status_code == status, f"{path}: {response.status_code} {response.text[:500]}"
        self._headers = action_headers(response.text) or self._headers
        return unescape(response.text)

    def post(self, path: str, fields: dict[str, str] | None = None, status: int = 204) -> Response:
        """Send a form as htmx does."""
        if not self._headers:
            self.get("/")
        response = self.client.post(path, data=fields or {}, headers={**self._headers, "hx-request": "true"})
        assert response.status_code == status, f"{path}: {response.status_code} {response.text[:500]}"
        return response
