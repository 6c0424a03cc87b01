"""What a run reports of itself while it runs: the status file, its fields, throughput, and where the loss goes.

Imports no torch: the command line and the documentation read it too.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev, variance
from typing import Any, Literal

from ratchet.atomic_files import write_best_effort

STATUS_FILE = "training_status.json"

RECENT_POINTS = 50
"""Points of the loss curve that are judged and shown."""
_FEWEST_POINTS = 8

_KEPT = 0.9
"""Weight of the past, at each step, in the recent average."""

Trend = Literal["falling", "level", "rising"]

STATUS_FIELDS: Mapping[str, str] = {
    "state": "`loading`, `training`, `saving`, then `finished`, `interrupted` or `failed`",
    "updated_at": "the sign of life: when the file was last written (Unix time)",
    "started_at": "when the run began (Unix time)",
    "model": "folder or name of the weights that it began with",
    "dataset": "the file that it trains on",
    "profile": "the profile that formats the rows",
    "system_prompt": "the system turn of a row that has none",
    "max_length": "longest row in tokens",
    "device": "what it computes on",
    "processes": "how many processes train together, each on its own device",
    "precision": "of the saved weights and of autocast",
    "attention": "the attention kernel",
    "batch_size": "rows of a micro-batch, smaller than the setting where memory was short",
    "step": "the global step",
    "last_step": "the step at which this segment ends, unless its time is up sooner",
    "epoch": "which pass over the rows, from 1",
    "examples_done": "rows of the batch that are trained, over all epochs",
    "examples_total": "rows of the batch, over all epochs",
    "examples_per_s": "since the segment began",
    "remaining_s": "until the batch is done, at this speed",
    "tokens_per_s": "since the segment began",
    "tokens_per_s_recent": "over the last ten steps or so",
    "longest_step_s": "the longest step of the segment, which bounds how long a stop takes",
    "loss": "the last point of the loss curve",
    "loss_curve": "its newest 50 points, each a step and the mean loss since the point before",
    "loss_trend": "`falling`, `level` or `rising`: newer half of those points against older, by two standard errors",
    "loss_spread": "standard deviation of those points",
    "learning_rate": "at the last point",
    "grad_norm": "the gradient's norm before clipping, at the last point",
    "peak_memory_gb": "the most memory so far: of the GPU where there is one, else of the process (10⁹ bytes)",
    "preview_step": "when the last preview was taken",
    "preview_asked": "its questions",
    "preview_correct": "how many of them were right",
    "preview_error": "why there was none",
    "checkpoint": "what the run saved",
    "rows_too_long": "rows that were left out",
    "error": "why it failed, with the traceback where the reason is not known",
    "error_kind": "the kind of it, as in the table above",
    "report_error": "why progress could not be reported; training went on",
    "tracker_error": "why a tracker of `environment.report_to` was disabled; training went on",
}
"""Every field that the status file may hold."""


class TrainingStatusWriter:
    """Keeps one JSON file up to date: readers see a whole status or none. ``updated_at`` is the sign of life."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._status: dict[str, Any] = {"started_at": time.time()}
        self._writing = threading.Lock()

    def write(self, **fields: Any) -> None:
        """Merge ``fields`` into the status and write it. A full or absent disk never stops training."""
        with self._writing:
            self._status |= fields
            status = {**self._status, "updated_at": time.time()}
            write_best_effort(self.path, json.dumps(status, ensure_ascii=False, indent=2) + "\n")

    def amend(self, **fields: Any) -> None:
        """Add to what another process has written of the run: a rank that fails reports its own error."""
        try:
            self._status = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._status = {}
        self.write(**fields)

    def start(self, **fields: Any) -> None:
        """Begin a run: forget the last one's fields."""
        self._status = {"started_at": time.time()}
        self.write(**fields)


class Throughput:
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


def loss_trend(losses: Sequence[float]) -> Trend | None:
    """The newer half of the last points against the older half; ``level`` within two standard errors.

    None of fewer than 8 points: they show nothing.
    """
    recent = losses[-RECENT_POINTS:]
    if len(recent) < _FEWEST_POINTS:
        return None
    older, newer = recent[: len(recent) // 2], recent[len(recent) // 2 :]
    change = fmean(newer) - fmean(older)
    error = sqrt(variance(older) / len(older) + variance(newer) / len(newer))
    if abs(change) <= 2 * error:
        return "level"
    return "falling" if change < 0 else "rising"


def loss_spread(losses: Sequence[float]) -> float | None:
    """Standard deviation of the last points; None of fewer than two."""
    recent = losses[-RECENT_POINTS:]
    return stdev(recent) if len(recent) > 1 else None
