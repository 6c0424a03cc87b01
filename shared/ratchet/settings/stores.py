"""Where the four stores are. Empty means: on this machine, below ``home``."""

from __future__ import annotations

from pydantic import Field, SecretStr

from ratchet.settings.section import Section


class LedgerSettings(Section):
    """The truth: SQLite by default, PostgreSQL for several hosts."""

    url: SecretStr | None = Field(
        None,
        description="SQLAlchemy URL, as postgresql+psycopg://user:password@host/ratchet. Default: home/ledger.db.",
    )


class ArtifactSettings(Section):
    """The bytes: a folder by default, an S3-compatible store for several hosts."""

    url: str | None = Field(None, description="fsspec URL, as s3://bucket/ratchet. Default: home/artifacts.")
    cache_gb: float = Field(50.0, gt=0, description="Size of the local cache in front of a remote store.")


class RedisSettings(Section):
    """Events and queues."""

    url: SecretStr | None = Field(
        None, description="As redis://:password@host:6379/0. Default: an embedded server below home."
    )
    port: int = Field(0, ge=0, le=65535, description="Port of the embedded server; 0 takes a free one.")
    stream_length: int = Field(10_000, ge=100, description="Events kept in each stream; they are hints only.")
