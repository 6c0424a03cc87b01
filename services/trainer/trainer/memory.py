"""How many rows fit into a device's memory, remembered from the runs that found out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from ratchet.disk import write_if_possible
from ratchet.settings.training import TrainerConfig

from trainer.form import form_of
from trainer.hardware import Hardware

BOOK = "memory.json"
"""The book's name, beside the status of the run."""


class MemoryBook:
    """The largest micro-batch that fitted, by model and device. A book that cannot be read is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recall(self, key: str) -> int | None:
        """Rows that fitted after more did not; None where nothing is known."""
        found = self._entries().get(key)
        return found if isinstance(found, int) else None

    def remember(self, key: str, rows: int) -> None:
        write_if_possible(self._path, json.dumps({**self._entries(), key: rows}, indent=2, sort_keys=True) + "\n")

    def _entries(self) -> dict[str, object]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def memory_key(config: TrainerConfig, hardware: Hardware) -> str:
    """Equal for runs of equal need: in model, what of it is trained, length of rows, precision and device."""
    shape = Path(config.model.path) / "config.json"
    text = shape.read_text(encoding="utf-8") if shape.is_file() else config.model.path
    model = hashlib.sha256(text.encode()).hexdigest()[:12]
    device = torch.cuda.get_device_name(hardware.device) if hardware.on_gpu else hardware.device
    parts = (model, form_of(config.model), f"{config.hyperparams.max_length} tokens", hardware.precision, device)
    more = ["recomputed"] * config.model.gradient_checkpointing
    more += [f"shared by {hardware.processes.world}"] * hardware.sharded
    return " / ".join([*parts, *more])
