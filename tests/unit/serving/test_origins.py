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


def status_under(client: TestClient, host: str, path: str = "/v1/models") -> int:
    return client.get(path, headers={"host": host}).status_code


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/metrics"])
def test_a_page_that_lets_its_name_lead_here_is_refused(serve: Serve, path: str) -> None:
    client = serve()
    for host in ("rebound.example.org", "rebound.example.org:8100", "localhost.example.org", "127.0.0.1.example.org"):
        refused = client.get(path, headers={"host": host})
        assert refused.status_code == 421
        assert "serving.allowed_hosts" in refused.json()["error"]["message"]
    plain = {"host": "rebound.example.org", "origin": "http://rebound.example.org", "content-type": "text/plain"}
    assert client.post("/v1/chat/completions", content="{}", headers=plain).status_code == 421


@pytest.mark.parametrize(
    "host", ["localhost:8100", "127.0.0.1", "[::1]:8100", "10.0.0.5:8100", "gpu-box:8100", "api.localhost", "serving"]
)
def test_local_names_and_addresses_are_served(serve: Serve, host: str) -> None:
    assert status_under(serve(), host) == 200


def test_the_names_that_are_served_follow_the_settings(serve: Serve) -> None:
    name = "models.example.org"
    assert status_under(serve(), name) == 421
    for told in ({"allowed_hosts": (name,)}, {"allowed_hosts": ("*",)}, {"url": f"http://{name}:8100"}):
        assert status_under(serve(**told), f"{name.upper()}:443") == 200
    with pytest.raises(ValueError, match=r"no name of a host: it is like models\.example\.org"):
        serve(allowed_hosts=("http://models.example.org",))
