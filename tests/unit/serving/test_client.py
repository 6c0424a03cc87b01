"""Whom the deployer asks, and how long it waits."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ratchet.errors import TransientError
from ratchet.serving.client import ServingClient
from ratchet.settings.serving import ServingSettings


def client(home: Path, timeout_s: float = 300.0, **changed: object) -> ServingClient:
    token = home / "token"
    token.write_text("secret")
    settings = ServingSettings.model_validate({"admin_token_file": token, "port": 1, **changed})
    return ServingClient.from_settings(settings, home, timeout_s)


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({}, "http://127.0.0.1:1"),
        ({"port": 2}, "http://127.0.0.1:2"),
        ({"host": "127.0.0.2"}, "http://127.0.0.2:1"),
        ({"url": "http://127.0.0.3:3"}, "http://127.0.0.3:3"),
    ],
    ids=["plain", "port", "host", "url"],
)
def test_the_server_address_follows_the_setting(tmp_path: Path, changed: dict[str, object], asked: str) -> None:
    with client(tmp_path, **changed) as server, pytest.raises(TransientError, match=f"{asked}: "):
        server.health()


def test_a_server_that_does_not_answer_in_time_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with client(tmp_path, url=url, timeout_s=0.05) as server, pytest.raises(TransientError, match="tim"):
            server.load("cp-1", "/nowhere", "w")
