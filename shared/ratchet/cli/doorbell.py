"""Waking a system from the command line. When Redis is away its sweep finds the change, only later."""

from __future__ import annotations

from ratchet.errors import TransientError, UnknownPlugin
from ratchet.settings import Settings
from ratchet.systems import registry


def ring(settings: Settings, *systems: str) -> None:
    """Ask these systems to look now; a system that is not installed here is woken by its sweep."""
    from ratchet.bus.doorbell import ring as ring_queue  # Celery, half a second of imports

    for name in systems:
        try:
            ring_queue(settings, registry.get(name))
        except (TransientError, UnknownPlugin):
            continue
