from __future__ import annotations

from ratchet.testing.stores import store

__all__ = ["store"]
