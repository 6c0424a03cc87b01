"""A child's target: one of several processes, of which one has room for so many rows at once and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from ratchet.children.child import Progress
from trainer.config import parse_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from trainer.processes import join
from trainer.segment import _report, _sections


def train(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """As trainer.segment:run_segment, but process ``short`` finds no memory for more than ``holds`` rows."""
    join(spec["processes"])
    status = Path(spec["status_path"])

    def asked() -> bool:
        rows = json.loads(status.read_text(encoding="utf-8"))["batch_size"]
        if spec["processes"]["rank"] == spec["short"] and rows > spec["holds"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return False

    engine = TrainerEngine(TrainingStatusWriter(status), report=progress, should_stop=asked)
    return _report(engine.run_job(parse_config(_sections(spec))))
