"""What `ratchet doctor` asks of stores that other hosts use too: bytes, clocks and passwords."""

from __future__ import annotations

import time

from sqlalchemy.engine import make_url

from ratchet.artifacts.configured import artifact_store
from ratchet.ledger import Ledger
from ratchet.settings import Settings

CLOCK_LIMIT_S = 2.0
LEAST_PASSWORD = 12
NO_ARTIFACT = "0" * 64


def artifacts_answer(settings: Settings) -> str:
    """Where the artifacts are. Raises RatchetError where they cannot be reached, with what to check."""
    artifact_store(settings).exists(NO_ARTIFACT)
    return settings.artifact_url


def clock_difference_s(ledger: Ledger) -> float:
    """Seconds that this machine's clock is ahead of the ledger's, half the way there and back taken off."""
    before = time.time()
    with ledger.write() as tx:
        theirs = tx.now
    return (before + time.time()) / 2 - theirs


def weak_passwords(settings: Settings) -> list[str]:
    """The settings whose password is short, or is the name of its user."""
    urls = {"ledger.url": settings.ledger.address, "redis.url": settings.redis.address}
    return [name for name, url in urls.items() if url is not None and _is_weak(url)]


def _is_weak(url: str) -> bool:
    parts = make_url(url)
    password = str(parts.password or "")
    return parts.host is not None and (len(password) < LEAST_PASSWORD or password == parts.username)
