"""Ringing a system by hand: the ordinary Celery message that says "look now"."""

from __future__ import annotations

from kombu.exceptions import OperationalError

from ratchet.bus.broker import broker_app
from ratchet.bus.connection import redis_url
from ratchet.errors import TransientError
from ratchet.settings import Settings
from ratchet.systems.system import System


def ring(settings: Settings, system: System, lane: str | None = None, cause: str | None = None) -> None:
    """Wake one lane, or all lanes, of a system. Raises TransientError while Redis is away."""
    app = broker_app(redis_url(settings))
    try:
        app.send_task(system.queue, kwargs={"lane": lane, "cause": cause}, queue=system.queue)
    except OperationalError as error:
        raise TransientError(f"Redis is away: {error}") from error
    finally:
        app.close()
