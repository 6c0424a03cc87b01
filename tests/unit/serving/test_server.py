"""Where the inference server is_streamed."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest
from ratchet.serving import server
from ratchet.serving.server import OTHER_FILES, most_connections
from ratchet.settings.serving import ServingSettings


def refused(folder: Path, serving: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a server that cannot start with these settings."""
    file = folder / "ratchet.toml"
    file.write_text(f"[serving]\n{serving}\n")
    assert server.main(["--home", str(folder / "serving"), "--config", str(file)]) == 1
    return capsys.readouterr().err


def test_the_port_follows_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is taken" in refused(tmp_path, f"port = {port}", capsys)


def test_the_host_follows_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The address is one of those that are kept for documents, and no machine's."""
    said = refused(tmp_path, 'host = "192.0.2.1"\nport = 0', capsys)
    assert "of 192.0.2.1 cannot be bound" in said


def test_a_limit_of_connections_leaves_room_for_all_requests_and_their_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        most = most_connections(ServingSettings(max_queue=700, max_batch=50))
        assert 750 < most < 5_000
        allowed = most + OTHER_FILES if hard == resource.RLIM_INFINITY else min(most + OTHER_FILES, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (allowed, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
