"""How long a segment takes to give way when its worker is asked to stop: the running step, and saving what it has.

It is a bound and not a wait: a segment that is done sooner ends sooner, and one that is not may hang. Needs no torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARGIN = 3.0
"""Times what was measured: a machine that stops is a busy one, and rows differ in length."""

SLOW_DISK_BYTES_PER_S = 50e6
FILES_S = 10.0
STATE_FACTOR = 4
"""Before a save was measured: a checkpoint and its state, of fp32 weights and two moments, on a slow disk."""


@dataclass
class Grace:
    """Follows the progress of a segment. ``save_s`` is what the last save of the line took, None before the first."""

    save_s: float | None
    size_bytes: int
    saving_since: float | None = None
    _longest_step_s: float = 0.0

    def hear(self, message: Mapping[str, Any]) -> float:
        """Seconds that it takes to give way, after this message; 0 while there is no step that could be lost."""
        self._longest_step_s = max(self._longest_step_s, float(message.get("longest_step_s") or 0.0))
        if message.get("state") == "saving":
            self.saving_since = time.monotonic()
        if not self._longest_step_s:
            return 0.0
        return MARGIN * (self._longest_step_s + self._longest_save_s)

    @property
    def saved_s(self) -> float | None:
        """Seconds since saving began, which is what it took once everything is published."""
        return None if self.saving_since is None else time.monotonic() - self.saving_since

    @property
    def _longest_save_s(self) -> float:
        if self.save_s is not None:
            return self.save_s
        return FILES_S + STATE_FACTOR * self.size_bytes / SLOW_DISK_BYTES_PER_S
