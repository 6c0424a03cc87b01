"""Monitoring of a running training: the status file and its fields, throughput, and the trend of the loss.

It imports no torch, since the command line and the documentation use it too.
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
"""Number of last points of the loss curve that are shown, and used for trend and spread."""
_MIN_POINTS = 8

_DECAY = 0.9
"""Decay per step of the recent average."""

Trend = Literal["falling", "level", "rising"]

STATUS_FIELDS: Mapping[str, str] = {
    "state": "`loading`, `training`, `saving`, then `finished`, `interrupted` or `failed`",
    "updated_at": "heartbeat: when the file was last written (Unix time)",
    "started_at": "when the run began (Unix time)",
    "model": "folder or name of the initial weights",
    "dataset": "the training file",
    "profile": "the profile that formats the rows",
    "system_prompt": "the system turn for rows without one",
    "max_length": "maximum length of a row in tokens",
    "device": "the device",
    "processes": "how many processes train together, each on its own device",
    "precision": "precision in which the run computes",
    "attention": "the attention kernel",
    "batch_size": "rows per micro-batch, fewer than in the setting if memory ran out",
    "step": "the global step",
    "last_step": "the step at which this segment ends, unless its time limit comes first",
    "epoch": "passes over the rows of the batch so far, as 2.25",
    "epochs": "passes over them in all",
    "examples_done": "rows of the batch trained so far, over all epochs",
    "examples_total": "rows of the batch, over all epochs",
    "examples_per_s": "average since the segment began",
    "remaining_s": "seconds until the batch is done, at this speed",
    "tokens_per_s": "average since the segment began",
    "tokens_per_s_recent": "average over about the last ten steps",
    "longest_step_s": "the longest step of the segment, which bounds how long a stop takes; within the first, how long "
    "that will take",
    "loss": "the last point of the loss curve",
    "loss_curve": "the newest 50 points, each a step and the mean loss since the previous point",
    "loss_trend": "`falling`, `level` or `rising`: newer half of these points against older, by two standard errors",
    "loss_spread": "standard deviation of those points",
    "learning_rate": "learning rate at the last point",
    "grad_norm": "norm of the gradient before clipping, at the last point",
    "peak_memory_gb": "peak memory so far: of the GPU if there is one, else of the process (10⁹ bytes)",
    "preview_step": "step of the last preview",
    "preview_asked": "number of its questions",
    "preview_correct": "how many of them were answered correctly",
    "preview_error": "why the last preview failed",
    "checkpoint": "folder of the saved checkpoint",
    "rows_too_long": "number of rows left out because they are too long",
    "rows_refused": "number of rows left out because the chat template cannot render them",
    "error": "why the run failed, with a traceback if the cause is unknown",
    "error_kind": "kind of the error, see the table above",
    "report_error": "why progress could not be reported; training continued",
    "tracker_error": "why a tracker of `environment.report_to` was disabled; training continued",
}
"""Every field that the status file may hold."""


class TrainingStatusWriter:
    """Keeps one JSON file up to date. It is replaced atomically; ``updated_at`` serves as a heartbeat."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._status: dict[str, Any] = {"started_at": time.time()}
        self._writing = threading.Lock()

    def write(self, **fields: Any) -> None:
        """Merge ``fields`` into the status and write it. A full or missing disk never stops training."""
        with self._writing:
            self._status |= fields
            status = {**self._status, "updated_at": time.time()}
            write_best_effort(self.path, json.dumps(status, ensure_ascii=False, indent=2) + "\n")

    def amend(self, **fields: Any) -> None:
        """Update the status that another process has written, so that a rank that fails can add its error."""
        try:
            self._status = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._status = {}
        self.write(**fields)

    def start(self, **fields: Any) -> None:
        """Begin a run: reset the fields of the previous one."""
        self._status = {"started_at": time.time()}
        self.write(**fields)


class Throughput:
    """Tokens per second. A stall shows in ``recent`` within about ten steps, in ``average`` hardly at all."""

    def __init__(self) -> None:
        self.begin(0.0)

    def begin(self, now_s: float) -> None:
        """Start measuring at ``now_s``, a time of any clock."""
        self._began_s = self._last_s = now_s
        self._tokens = 0
        self.longest_s = 0.0
        self._recent_tokens = self._recent_s = 0.0

    def step(self, now_s: float, tokens: int) -> None:
        """Record the end of a step; ``tokens`` is the total since the beginning."""
        self._recent_tokens = _DECAY * self._recent_tokens + (tokens - self._tokens)
        self._recent_s = _DECAY * self._recent_s + (now_s - self._last_s)
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._tokens, self._last_s = tokens, now_s

    @property
    def elapsed_s(self) -> float:
        """Seconds from the beginning to the end of the last step."""
        return self._last_s - self._began_s

    @property
    def average(self) -> float:
        """Tokens per second since the beginning; 0 before the first step."""
        return self._tokens / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def recent(self) -> float:
        """Tokens per second over about the last ten steps, the newest weighted most; 0 before the first step."""
        return self._recent_tokens / self._recent_s if self._recent_s else 0.0


def loss_trend(losses: Sequence[float]) -> Trend | None:
    """Compare the newer half of the last points with the older half; ``level`` within two standard errors.

    None for fewer than 8 points, which show no trend.
    """
    recent = losses[-RECENT_POINTS:]
    if len(recent) < _MIN_POINTS:
        return None
    older, newer = recent[: len(recent) // 2], recent[len(recent) // 2 :]
    change = fmean(newer) - fmean(older)
    error = sqrt(variance(older) / len(older) + variance(newer) / len(newer))
    if abs(change) <= 2 * error:
        return "level"
    return "falling" if change < 0 else "rising"


def loss_spread(losses: Sequence[float]) -> float | None:
    """Standard deviation of the last points; None for fewer than two."""
    recent = losses[-RECENT_POINTS:]
    return stdev(recent) if len(recent) > 1 else None
