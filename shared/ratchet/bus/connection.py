"""The address of Redis, and clients whose errors become TransientErrors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from ratchet.bus.embedded_redis import embedded_url
from ratchet.errors import TransientError
from ratchet.settings import Settings

SOCKET_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
RETRIES = 3


def redis_url(settings: Settings) -> str:
    """The configured server, or the embedded one below home. Raises TransientError if that does not run."""
    return verifying(settings.redis.address or embedded_url(settings))


def verifying(url: str) -> str:
    """The URL with the certificate of a TLS server verified, unless it says how: Celery takes any otherwise.

    ``ssl_ca_certs=FILE`` in it names the certificates of a private authority.
    """
    parts = urlsplit(url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return url
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))))


def connect(url: str) -> Redis:
    """A client that connects at its first command and reconnects after a lost connection."""
    return Redis.from_url(
        url,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES),
        protocol=2,
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Turn errors of Redis in the block into TransientErrors. Everything in Redis can be rebuilt from the ledger."""
    try:
        yield
    except RedisError as error:
        raise TransientError(f"Redis is away: {error}") from error
