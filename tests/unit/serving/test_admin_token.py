from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from ratchet.errors import SettingsError, TransientError
from ratchet.serving.server_home import client_token, server_token, token_path
from ratchet.settings.serving import ServingSettings

from tests.support.disk import SmallDisk, fill, free


def test_a_configured_token_is_taken(tmp_path: Path) -> None:
    settings = ServingSettings(admin_token=SecretStr("mine"))
    assert server_token(settings, tmp_path) == client_token(settings, tmp_path) == SecretStr("mine")
    assert not token_path(tmp_path).exists()


def test_a_token_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    settings = ServingSettings(admin_token_file=tmp_path / "token")
    assert server_token(settings, tmp_path) == client_token(settings, tmp_path) == SecretStr("from a file")


def test_without_one_the_server_makes_one_for_its_owner_alone(tmp_path: Path) -> None:
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
def test_a_file_without_a_token_is_made_anew_by_the_server(tmp_path: Path, left: bytes) -> None:
    token_path(tmp_path).write_bytes(left)
    with pytest.raises(TransientError, match="holds no token; the server makes one as it starts"):
        client_token(ServingSettings(), tmp_path)
    made = server_token(ServingSettings(), tmp_path)
    assert len(made.get_secret_value()) > 30
    assert client_token(ServingSettings(), tmp_path) == server_token(ServingSettings(), tmp_path) == made
    assert token_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_client_waits_for_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="no such file; the server makes it as it starts"):
        client_token(ServingSettings(), tmp_path)


def test_a_full_disk_leaves_no_token_behind_and_the_next_start_makes_one(small_disk: SmallDisk) -> None:
    home = small_disk(65_536)
    fill(home)
    with pytest.raises(TransientError, match="takes no more: 0 are free"):
        server_token(ServingSettings(), home)
    free(home)
    assert server_token(ServingSettings(), home) == client_token(ServingSettings(), home)
