"""Whom the deployer asks, and how long it waits."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ratchet.errors import TransientError
from ratchet.serving.client import ServingClient
from ratchet.settings.serving import ServingSettings


def client(home: Path, **changed: object) -> ServingClient:
    settings = ServingSettings.model_validate({"admin_token": "secret", "port": 1, **changed})
    return ServingClient.from_settings(settings, home)


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
def test_where_the_server_is_asked_is_set(tmp_path: Path, changed: dict[str, object], asked: str) -> None:
    with client(tmp_path, **changed) as server, pytest.raises(TransientError, match=f"{asked}: "):
        server.health()


def test_a_server_that_does_not_answer_in_the_time_that_is_set_is_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with client(tmp_path, url=url, admin_timeout_s=0.05) as server, pytest.raises(TransientError, match="tim"):
            server.load("cp-1", "/nowhere", "w")
