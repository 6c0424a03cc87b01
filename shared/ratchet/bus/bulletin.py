"""What training says of itself, kept in Redis so that every machine can show it.

It is for looking at: nothing is decided by it, and where it is lost nothing is missed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ratchet.bus.connection import redis_trouble, redis_url
from ratchet.errors import TransientError
from ratchet.evaluation.preview import Preview
from ratchet.settings import Settings

KEY = "ratchet:bulletin:training"
KEPT_S = 300
"""It is put up again well before; where nobody does, the training machine is away."""
PATIENCE_S = 1.0
"""A view waits no longer for a Redis that does not answer."""


@dataclass(frozen=True)
class Bulletin:
    """``status`` is the training status file; ``previews`` are some of the newest, the newest last."""

    status: dict[str, Any] = field(default_factory=dict)
    previews: tuple[Preview, ...] = ()

    def encode(self) -> str:
        """As JSON."""
        return json.dumps({"status": self.status, "previews": [each.model_dump() for each in self.previews]})

    @classmethod
    def decode(cls, text: str | bytes) -> Bulletin:
        """Raises ValueError for what another version of Ratchet wrote in a way of its own."""
        try:
            read = json.loads(text)
            return cls(dict(read["status"]), tuple(Preview.model_validate(each) for each in read["previews"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no bulletin: {error}") from error


def put_up(client: Redis, bulletin: Bulletin) -> None:
    """Let it be seen for ``KEPT_S``. Raises TransientError."""
    with redis_trouble():
        client.set(KEY, bulletin.encode(), ex=KEPT_S)


def newest(settings: Settings) -> Bulletin | None:
    """What the training machine put up lately; None where it did not, or Redis is not to be had."""
    try:
        url = redis_url(settings)
        client = Redis.from_url(
            url, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S, retry=Retry(NoBackoff(), 0), protocol=2
        )
        with client, redis_trouble():
            text = client.get(KEY)
        return Bulletin.decode(text) if text is not None else None
    except (TransientError, ValueError):
        return None
