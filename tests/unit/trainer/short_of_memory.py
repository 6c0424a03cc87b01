"""A launcher and its ranks, of which one has room for so many rows at once and no more."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from ratchet.processes.fork_server import Progress
from trainer.distributed import Processes
from trainer.launch import ShouldStop, launch_ranks, run_rank, train_segment


def launch(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """As trainer.launch:launch_ranks, but rank ``short`` has no memory for more than ``holds`` rows."""
    return launch_ranks(spec, progress, module=__name__)


def train(spec: dict[str, Any], progress: Progress, should_stop: ShouldStop) -> dict[str, Any]:
    status = Path(spec["status_path"])

    def fails() -> bool:
        rows = json.loads(status.read_text(encoding="utf-8"))["batch_size"]
        if Processes.from_environment().rank == spec["short"] and rows > spec["holds"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return should_stop()

    return train_segment(spec, progress, fails)


if __name__ == "__main__":
    sys.exit(run_rank(sys.argv[1], train))
