"""What a run says of itself while it runs."""

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
from ratchet.settings.legacy import Fate, Gone, Kept


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
        """Add to what another process has written of the run: the last word of one that speaks for no other."""
        try:
            self._status = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._status = {}
        self.write(**fields)

    def start(self, **fields: Any) -> None:
        """Begin a run: forget the last one's fields."""
        self._status = {"started_at": time.time()}
        self.write(**fields)


FIELDS: Mapping[str, str] = {
    "state": "`loading`, `training`, `saving`, then `finished`, `interrupted` or `failed`",
    "updated_at": "the sign of life: when the file was last written (Unix time)",
    "started_at": "when the run began (Unix time)",
    "model": "folder or name of the weights that it began with",
    "dataset": "the file that it trains on",
    "profile": "the profile that formats the rows",
    "system_prompt": "the system turn of a row that has none",
    "max_length": "longest row in tokens",
    "device": "what it computes on",
    "processes": "how many processes train together, each on a device of its own",
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
    "longest_step_s": "the longest step of the segment; from it follows how long a stop waits",
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
    "report_error": "why the worker could not be told of progress; training went on",
    "tracker_error": "why a tracker of `environment.report_to` was left alone; training went on",
}

_PREVIEWS = "`ratchet show previews`, `ratchet status`: previews.jsonl has every question, gold, answer and verdict"
_TESTED = "testing grades every checkpoint on held-out items and keeps each item: `ratchet show leaderboard`, `ratchet why`"
_NOBODY_ACTS = "nothing is decided by it, and the record of an evaluation has families and levels in its place"
_STATELESS = "logits processors keep no state, so there is nothing to count; the served contract is graded"


def _same_fate(fate: Fate, *names: str) -> dict[str, Fate]:
    return dict.fromkeys(names, fate)


PRIOR: Mapping[str, Fate] = {
    "status": Kept("state", "no `idle`: a file that nobody renews says so by `updated_at`"),
    "timestamp": Kept("updated_at"),
    "current_step": Kept("step", "kept when a run ends or fails"),
    "total_steps": Kept("last_step"),
    "epoch": Kept("epoch"),
    "loss": Kept("loss", "kept when a run ends or fails"),
    "learning_rate": Kept("learning_rate"),
    "model_name": Kept("model"),
    "max_output_tokens": Gone("a setting, monitoring.preview_max_tokens: `ratchet config show`"),
    "context_window": Kept("max_length", "the model's own is locked.max_context_length"),
    "batch_step": Kept("examples_done", "in rows"),
    "batch_total_steps": Kept("examples_total", "in rows"),
    **_same_fate(
        Gone("the ledger has the queue: `ratchet status`, `ratchet queue list`"), "batch_number", "batch_queue_size"
    ),
    "current_file": Kept("dataset"),
    "current_system_prompt": Kept("system_prompt"),
    **_same_fate(
        Gone(_PREVIEWS), "current_prompt", "golden_answer", "model_answer", "answer_matches", "recent_examples"
    ),
    "total_evals": Kept("preview_asked", "of the last preview; the view counts the last fifty answers"),
    "total_correct": Kept("preview_correct", "of the last preview"),
    "accuracy_percent": Gone(f"a share of preview_asked; the accuracy that counts is another: {_TESTED}"),
    "train_loss_history": Kept("loss_curve", "it was never filled"),
    "accuracy_history": Gone(_TESTED),
    **_same_fate(
        Gone(_TESTED),
        "fixed_eval_em",
        "fixed_eval_ce",
        "fixed_eval_ece",
        "fixed_eval_trend",
        "accuracy_last_20",
        "accuracy_last_50",
        "accuracy_trend",
        "validation_loss",
        "val_train_gap",
    ),
    "lora_*": Gone("never filled; rank and targets are settings, the state's form holds what is trained"),
    "streaming_ce": Kept("loss", "the same number; it was never filled"),
    "loss_variance": Kept("loss_spread", "its square root"),
    "loss_trend": Kept("loss_trend", "by standard errors, where it was by 0.001"),
    "token_entropy": Gone("never filled; the record of an evaluation has every token's log-probability"),
    **_same_fate(Gone(_STATELESS), "think_tag_count", "think_tag_percent", "logit_penalty_stats", "penalty_heatmap"),
    **_same_fate(
        Gone(_NOBODY_ACTS),
        "pattern_heatmap",
        "pattern_loss_trend",
        "pattern_layer_correlation",
        "length_bin_staleness",
        "layer_activity",
        "layer_stability",
    ),
    "tokens_per_sec": Kept("tokens_per_s_recent"),
    "tokens_per_sec_avg": Kept("tokens_per_s"),
    "tokens_per_sec_baseline": Kept("tokens_per_s", "what is recent is held against the whole segment"),
    "throughput_vram_samples": Kept("peak_memory_gb", "over time it is in Prometheus, with the speed"),
    "queue_velocity": Kept("examples_per_s"),
    "output_lengths": Gone("each preview has its tokens: `ratchet show previews --json`"),
    **_same_fate(
        Gone("alert rules are Prometheus', each with a runbook: docs/alerts.md"), "active_alerts", "alert_summary"
    ),
    "error_message": Kept("error"),
    "error_type": Kept("error_kind"),
    "daily inference log": Gone("previews.jsonl for training, the ledger's suites and the server's log for the rest"),
}
"""Every field of the prior system's file, and its daily log."""


_KEPT = 0.9
"""Share of the past that a step leaves in what is held for recent."""


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


RECENT_POINTS = 50
"""Points of the curve that are looked at and shown."""
_FEWEST = 8

Trend = Literal["falling", "level", "rising"]


def loss_trend(losses: Sequence[float]) -> Trend | None:
    """The newer half of the last points against the older half; ``level`` within two standard errors.

    None of fewer than 8 points: they show nothing.
    """
    recent = losses[-RECENT_POINTS:]
    if len(recent) < _FEWEST:
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
