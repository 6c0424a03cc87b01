"""Sections of the stores: ledger, Redis, artifacts and retention; and passwords from files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator

from ratchet.errors import SettingsError
from ratchet.printable import printable
from ratchet.proxies import is_local
from ratchet.settings.section import Section
from ratchet.user_files import read_text

_LEDGER_URL = re.compile(
    r"sqlite(\+\w+)?:///[^?].*|postgresql(\+\w+)?://([^:/]*(:[^@]*)?@)?(\[[^/?]+\]|[^/:?]*)(:\d*)?(/[^?]*)?(\?.*)?"
)
"""SQLAlchemy's grammar. SQLAlchemy itself would be imported into training processes, which have no use for it."""


class LedgerSettings(Section):
    """Where the ledger is: SQLite by default, PostgreSQL for several hosts."""

    url: SecretStr | None = Field(
        None,
        description="SQLAlchemy URL, such as postgresql+psycopg://user:password@host/ratchet. Default: home/ledger.db.",
    )
    password_file: Path | None = Field(None, description="File with the password of `ledger.url`, where it names none.")

    @field_validator("url")
    @classmethod
    def _engine_is_known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _LEDGER_URL.fullmatch(url.get_secret_value()):  # it may hold a password
            raise ValueError(
                "this is not the URL of a ledger; write postgresql+psycopg://user@host/ratchet or sqlite:////folder/ledger.db"
            )
        return url

    @property
    def address(self) -> str | None:
        """The URL with its password. Raises SettingsError where the file of the password cannot be read."""
        return _with_password(self.url, self.password_file)


class ArtifactSettings(Section):
    """Where artifacts are: a folder by default, an S3-compatible store for several hosts."""

    url: str | None = Field(None, description="fsspec URL, such as s3://bucket/ratchet. Default: home/artifacts.")
    endpoint: str | None = Field(
        None, description="Base URL of an S3 server other than Amazon's, such as http://host:8333."
    )
    access_key: str | None = Field(None, description="Access key of the S3 server.")
    secret_key_file: Path | None = Field(None, description="File with the secret key of the S3 server.")
    cache_gb: float = Field(50.0, gt=0, description="Size of the local cache in front of a remote store.")

    @property
    def options(self) -> dict[str, Any]:
        """Options for opening the file system. Raises SettingsError if the file of the key cannot be read."""
        options: dict[str, Any] = {}
        if self.endpoint:
            config: dict[str, Any] = {"s3": {"addressing_style": "path"}, **_WITHOUT_CHECKSUMS}
            if is_local(self.endpoint):
                config["proxies"] = {}  # none, also where the environment names one
            options |= {"endpoint_url": self.endpoint, "config_kwargs": config}
        if self.access_key:
            options["key"] = self.access_key
        if self.secret_key_file:
            options["secret"] = read_secret(self.secret_key_file)
        return options


class RedisSettings(Section):
    """The server for events and queues."""

    url: SecretStr | None = Field(
        None,
        description="Such as redis://:password@host:6379/0, or rediss://host/0?ssl_ca_certs=FILE for TLS with a "
        "private authority. Default: an embedded server below home.",
    )
    password_file: Path | None = Field(None, description="File with the password of `redis.url`, where it names none.")
    port: int = Field(0, ge=0, le=65535, description="Port of the embedded server; 0 takes a free one.")

    @field_validator("url")
    @classmethod
    def _scheme_is_known(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a URL of Redis begins with redis://, rediss:// or unix://, as redis://host:6379/0")
        return url

    @property
    def address(self) -> str | None:
        """The URL with its password. Raises SettingsError where the file of the password cannot be read."""
        return _with_password(self.url, self.password_file)


_WITHOUT_CHECKSUMS = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
"""Servers that only look like S3 refuse the checksums of Amazon's; an artifact has its own."""


def read_secret(path: Path) -> str:
    """The first line of a file. Raises SettingsError for one that cannot be read or is empty."""
    try:
        secret = read_text(path, SettingsError).removeprefix("\ufeff").strip()  # which editors on Windows write
    except SettingsError as error:
        raise SettingsError(f"the secret in {printable(path)} cannot be read: {error}") from error
    if not secret:
        raise SettingsError(f"{printable(path)} is empty; it must hold a secret.")
    return secret


def _with_password(url: SecretStr | None, file: Path | None) -> str | None:
    if url is None or file is None:
        return url.get_secret_value() if url else None
    parts = urlsplit(url.get_secret_value())
    user, separator, place = parts.netloc.rpartition("@")
    if ":" in user:
        raise SettingsError(f"{parts.scheme}://…@{place} already has a password; use either that or the file {file}.")
    netloc = f"{user}:{quote(read_secret(file), safe='')}@{place if separator else parts.netloc}"
    return urlunsplit(parts._replace(netloc=netloc))


class RetentionSettings(Section):
    """Old checkpoints are deleted by bytes; champion, rollback target, newest, claimed ones and their bases never.
    Records and events are deleted by age; those that a decision rests on never."""

    checkpoints_gb: float | None = Field(
        None,
        gt=0,
        description="Gigabytes of checkpoints and training states that are kept. Unset, half of the disk that is there "
        "(free, or held by them), and 100 in an object store. A nearly full disk keeps fewer.",
    )
    events_days: int = Field(
        90,
        ge=0,
        description="Days that an event stays in the journal; 0 keeps all. Kept for ever are deployments, rollbacks, "
        "regressions, and every event that led to one.",
    )
    records_days: int = Field(
        30,
        ge=0,
        description="Days that the answers of a checkpoint to the suites, its mined items, and the rows of a batch in "
        "quarantine are kept; 0 keeps all. Scores and verdicts stay. Kept for ever are those of the base model, of all "
        "that were ever deployed or regressed, and of open challenges.",
    )
