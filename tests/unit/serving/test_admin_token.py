from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr
from ratchet.errors import SettingsError
from ratchet.serving.admin_token import client_token, server_token, token_path
from ratchet.settings.serving import ServingSettings


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
    with pytest.raises(SettingsError, match=str(path)):
        client_token(ServingSettings(admin_token_file=path), tmp_path)
