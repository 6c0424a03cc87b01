"""Which web pages may call the server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

Serve = Callable[..., TestClient]

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, authorization"}


def preflight(client: TestClient, origin: str) -> tuple[int, str | None]:
    response = client.options("/v1/chat/completions", headers={"origin": origin, **PREFLIGHT})
    return response.status_code, response.headers.get("access-control-allow-origin")


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]", "tauri://localhost"]
)
def test_pages_of_this_machine_may_call(serve: Serve, origin: str) -> None:
    client = serve()
    status, allowed = preflight(client, origin)
    assert status == 200
    assert allowed in ("*", origin)
    answer = client.get("/v1/models", headers={"origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] in ("*", origin)


@pytest.mark.parametrize("origin", ["https://chat.example.org", "null", "http://localhost.example.org", "http://[::1"])
def test_the_pages_that_may_call_follow_the_setting(serve: Serve, origin: str) -> None:
    strict = serve()
    assert preflight(strict, origin) == (403, None)
    for path in ("/v1/models", "/health", "/metrics"):
        refused = strict.get(path, headers={"origin": origin})
        assert refused.status_code == 403
        assert "serving.allowed_origins" in refused.json()["error"]["message"]
    plain = strict.post("/v1/chat/completions", content="{}", headers={"origin": origin, "content-type": "text/plain"})
    assert plain.status_code == 403
    for allowed in ((origin,), ("*",)):
        assert preflight(serve(allowed_origins=allowed), origin)[0] == 200
    private = {"origin": origin, "access-control-request-private-network": "true", **PREFLIGHT}
    asked = [serve(**told).options("/v1/completions", headers=private) for told in ({}, {"allowed_origins": (origin,)})]
    assert [response.status_code for response in asked] == [403, 200]
    assert asked[1].headers["access-control-allow-private-network"] == "true"


def test_programs_are_not_concerned(serve: Serve) -> None:
    client = serve()
    response = client.head("/health")
    assert (response.status_code, response.content) == (200, b"")
    assert "access-control-allow-origin" not in client.get("/health").headers
