"""How fast a segment goes: since it began, and of late; and how long its longest step took."""

from __future__ import annotations

_KEPT = 0.9
"""Share of the past that a step leaves in what is held for recent."""


class Pace:
    """Tokens a second. A stall shows in ``recent`` within some ten steps, in ``average`` hardly ever."""

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """Start the clock, of any origin."""
        self._began_s = self._last_s = now_s
        self._tokens = 0
        self.longest_s = 0.0
        self._recent_tokens = self._recent_s = 0.0

    def step(self, now_s: float, tokens: int) -> None:
        """A step has ended; ``tokens`` were trained since the beginning."""
        self._recent_tokens = _KEPT * self._recent_tokens + (tokens - self._tokens)
        self._recent_s = _KEPT * self._recent_s + (now_s - self._last_s)
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._tokens, self._last_s = tokens, now_s

    @property
    def elapsed_s(self) -> float:
        """From the beginning to the end of the last step."""
        return self._last_s - self._began_s

    @property
    def average(self) -> float:
        """Tokens a second since the beginning; 0 before the first step."""
        return self._tokens / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def recent(self) -> float:
        """Tokens a second over the last ten steps or so, the newest counting most; 0 before the first step."""
        return self._recent_tokens / self._recent_s if self._recent_s else 0.0
