"""What the server knows again after a crash, whatever has become of its file."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import SecretStr
from ratchet.errors import SettingsError, TransientError
from ratchet.serving.protocol import Live
from ratchet.serving.server_home import (
    ServerHome,
    ServingState,
    StateFile,
    announced_url,
    client_token,
    server_token,
    token_path,
)
from ratchet.settings.serving import ServingSettings

from tests.support.disk import SmallDisk, fill, free

STATE = ServingState(
    highest_fencing_token=47, live=Live(checkpoint_id="c1", weights="ab", fencing_token=46), path="/somewhere"
)


def test_the_state_is_read_as_written(tmp_path: Path) -> None:
    assert StateFile(tmp_path).read() == ServingState()
    StateFile(tmp_path).write(STATE)
    assert StateFile(tmp_path).read() == STATE


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b"", 0),
        (b"\0" * 60, 0),
        (b'{"highest_fencing_token":4', 0),
        (STATE.model_dump_json().encode()[:33], 47),
        (b'{"highest_fencing_token": 47, "live": null, "of_a_newer_version": 1}', 47),
    ],
)
def test_a_damaged_state_file_is_set_aside_and_its_token_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, token: int
) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert StateFile(tmp_path).read() == ServingState(highest_fencing_token=token)
    assert (tmp_path / "state.json.damaged").read_bytes() == content
    assert ("tokens below 47 are refused" if token else "fencing token is lost") in caplog.text
    assert StateFile(tmp_path).read() == ServingState(highest_fencing_token=token)


def test_a_full_disk_keeps_the_previous_state(small_disk: SmallDisk) -> None:
    home = small_disk(65_536)
    StateFile(home).write(STATE)
    fill(home)
    with pytest.raises(TransientError, match="is full"):
        StateFile(home).write(ServingState(highest_fencing_token=48))
    assert StateFile(home).read() == STATE
    free(home)
    StateFile(home).write(ServingState(highest_fencing_token=48))
    assert StateFile(home).read().highest_fencing_token == 48


def test_a_damaged_file_on_a_full_disk_keeps_its_token_for_the_next_start(small_disk: SmallDisk) -> None:
    home = small_disk(65_536)
    (home / "state.json").write_bytes(STATE.model_dump_json().encode()[:33])
    fill(home)
    with pytest.raises(TransientError, match="is full"):
        StateFile(home).read()
    free(home)
    assert StateFile(home).read() == ServingState(highest_fencing_token=47)


@pytest.mark.parametrize("content", [None, b"", b"\0", b'{"url": "http://127', b"[]", b"{}", b"\xff"])
def test_an_unreadable_announcement_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "server.json").write_bytes(content)
    assert announced_url(tmp_path) is None
    with ServerHome(tmp_path) as home:
        home.announce("http://127.0.0.1:1")
    assert announced_url(tmp_path) == "http://127.0.0.1:1"


def test_a_token_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    settings = ServingSettings(admin_token_file=tmp_path / "token")
    assert server_token(settings, tmp_path) == client_token(settings, tmp_path) == SecretStr("from a file")
    assert not token_path(tmp_path).exists()


def test_a_missing_token_file_is_created_readable_by_its_owner_alone(tmp_path: Path) -> None:
    made = server_token(ServingSettings(), tmp_path)
    assert len(made.get_secret_value()) > 30
    assert token_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert server_token(ServingSettings(), tmp_path) == client_token(ServingSettings(), tmp_path) == made


@pytest.mark.parametrize("content", [None, " \n"])
def test_a_file_that_is_missing_or_empty_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    for token in (client_token, server_token):
        with pytest.raises(SettingsError, match=f"serving.admin_token_file: .*{path}.* Write the bearer token"):
            token(ServingSettings(admin_token_file=path), tmp_path)


@pytest.mark.parametrize("left", [b"", b"\n", b"\0" * 43, b"\xff\xfe"])
def test_a_file_without_a_token_is_replaced_by_the_server(tmp_path: Path, left: bytes) -> None:
    token_path(tmp_path).write_bytes(left)
    with pytest.raises(TransientError, match="holds no token; the server creates one when it starts"):
        client_token(ServingSettings(), tmp_path)
    made = server_token(ServingSettings(), tmp_path)
    assert len(made.get_secret_value()) > 30
    assert client_token(ServingSettings(), tmp_path) == server_token(ServingSettings(), tmp_path) == made
    assert token_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_client_waits_for_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="no such file; the server creates it when it starts"):
        client_token(ServingSettings(), tmp_path)


def test_a_full_disk_leaves_no_token_file_and_the_next_start_creates_one(small_disk: SmallDisk) -> None:
    home = small_disk(65_536)
    fill(home)
    with pytest.raises(TransientError, match="is full: 0 are free"):
        server_token(ServingSettings(), home)
    free(home)
    assert server_token(ServingSettings(), home) == client_token(ServingSettings(), home)
