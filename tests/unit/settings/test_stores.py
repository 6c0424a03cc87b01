"""Passwords from files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.bus.connection import redis_url
from ratchet.cli.doctor.machine import weak_passwords
from ratchet.errors import SettingsError
from ratchet.settings import Settings, load


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text("p@ss/w:rd\n")
    return file


def test_a_password_from_a_file_is_put_into_the_url(secret: Path) -> None:
    settings = Settings(
        ledger={"url": "postgresql+psycopg://ratchet@hub:5432/ratchet", "password_file": secret},
        redis={"url": "redis://worker@hub:6379/0", "password_file": secret},
    )
    assert settings.ledger_url == "postgresql+psycopg://ratchet:p%40ss%2Fw%3Ard@hub:5432/ratchet"
    assert redis_url(settings) == "redis://worker:p%40ss%2Fw%3Ard@hub:6379/0"


def test_a_url_without_a_user_gets_the_password_alone(secret: Path) -> None:
    assert redis_url(Settings(redis={"url": "redis://hub/0", "password_file": secret})).startswith("redis://:p%40")


def test_a_password_in_both_url_and_file_is_refused(secret: Path) -> None:
    settings = Settings(redis={"url": "redis://worker:other@hub/0", "password_file": secret})
    with pytest.raises(SettingsError, match="already has a password"):
        redis_url(settings)


def test_a_missing_or_empty_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="absent"):
        redis_url(Settings(redis={"url": "redis://hub/0", "password_file": tmp_path / "absent"}))
    (tmp_path / "empty").touch()
    with pytest.raises(SettingsError, match="is empty"):
        redis_url(Settings(redis={"url": "redis://hub/0", "password_file": tmp_path / "empty"}))


def test_an_s3_store_is_opened_with_its_server_and_keys(secret: Path, tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        artifacts={
            "url": "s3://ratchet/artifacts",
            "endpoint": "http://hub:8333",
            "access_key": "worker",
            "secret_key_file": secret,
        },
    )
    options = settings.artifacts.options
    assert (options["endpoint_url"], options["key"], options["secret"]) == ("http://hub:8333", "worker", "p@ss/w:rd")
    assert artifact_store(settings).url == "s3://ratchet/artifacts"
    assert options["config_kwargs"]["request_checksum_calculation"] == "when_required"
    assert options["config_kwargs"]["response_checksum_validation"] == "when_required"


def test_a_secret_may_come_from_an_editor_on_windows(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfpassword\r\n")
    assert redis_url(Settings(redis={"url": "redis://hub/0", "password_file": tmp_path / "secret"})) == (
        "redis://:password@hub/0"
    )


def test_doctor_knows_weak_passwords(secret: Path) -> None:
    secret.write_text("long-and-not-to-be-guessed")
    weak = Settings(
        ledger={"url": "postgresql+psycopg://ratchet:ratchet@hub/ratchet"},
        redis={"url": "redis://worker@hub/0", "password_file": secret},
    )
    assert weak_passwords(weak) == ["ledger.url"]
    assert weak_passwords(Settings()) == []


@pytest.mark.parametrize(
    ("section", "url", "said"),
    [
        ("ledger", "nonsense:hunter2", "this is not the URL of a ledger; write postgresql"),
        ("ledger", "postgresql+psycopg://me:hunter2@host:port/x", "this is not the URL of a ledger"),
        ("ledger", "mysql://me:hunter2@host/x", "this is not the URL of a ledger"),
        ("ledger", "sqlite://", "or sqlite:////folder/ledger.db"),
        ("redis", "hunter2", "begins with redis://, rediss:// or unix://"),
    ],
)
def test_a_url_that_no_store_can_have_is_refused_without_its_password(section: str, url: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**{section: {"url": url}})
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:p[#w@host/x", "postgresql:///x?host=/run", "sqlite:///x.db"])
def test_a_url_that_sqlalchemy_can_open_is_taken(url: str) -> None:
    assert load(ledger={"url": url}).ledger_url == url
