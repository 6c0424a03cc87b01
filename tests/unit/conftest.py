"""Property tests assert on values, never on wall-clock time, and repeat themselves exactly."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("ratchet", deadline=None, derandomize=True, database=None)
settings.load_profile("ratchet")
