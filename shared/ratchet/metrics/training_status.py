"""The status file of a training segment as metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratchet.metrics.families import single
from ratchet.settings import Settings

RUNNING = ("loading", "training", "saving")


class TrainingCollector(Collector):
    """Reads ``status/training_status.json`` at each scrape; without one there are no samples."""

    def __init__(self, settings: Settings):
        self._path: Path = settings.status_folder / "training_status.json"

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status = self._read()
        state = status.get("state")
        running = None if state is None else float(state in RUNNING)
        speed = _number(status, "tokens_per_s") if running else running
        yield single("ratchet_training_running", "1 while a segment loads, trains or saves.", running)
        yield single("ratchet_training_loss", "The newest training loss.", _number(status, "loss"))
        yield single("ratchet_training_tokens_per_second", "Trained tokens per second, 0 when not training.", speed)
        yield single("ratchet_training_step", "Optimizer steps of the lineage.", _number(status, "step"))
        yield single(
            "ratchet_training_batch_done_examples",
            "Trained examples of the running batch, over all epochs.",
            _number(status, "examples_done"),
        )
        yield single(
            "ratchet_training_batch_examples",
            "Examples of the running batch, over all epochs.",
            _number(status, "examples_total"),
        )
        yield from _previews(status)
        yield single(
            "ratchet_training_updated_timestamp_seconds",
            "When the segment last wrote its status.",
            _number(status, "updated_at"),
        )

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _previews(status: dict[str, Any]) -> Iterator[GaugeMetricFamily]:
    """Metrics of the running segment's last preview; without one there are no samples."""
    right, asked, step = (_number(status, f"preview_{name}") for name in ("correct", "asked", "step"))
    yield single("ratchet_training_preview_right", "Right answers of the last preview.", right)
    yield single("ratchet_training_preview_asked", "Questions of the last preview.", asked)
    yield single("ratchet_training_preview_step", "Optimizer step of the last preview.", step)


def _number(status: dict[str, Any], name: str) -> float | None:
    value = status.get(name)
    return float(value) if isinstance(value, int | float) else None
