"""A launcher and its ranks, of which rank 1 has no memory for more than two rows at once."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from ratchet.processes.fork_server import Progress
from trainer.distributed import Processes
from trainer.launch import ShouldStop, launch_ranks, run_rank, train_segment
from trainer.segment import SegmentResult, SegmentSpec

FITS = 2


def launch(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return launch_ranks(spec, progress, module=__name__)


def train(spec: SegmentSpec, progress: Progress, should_stop: ShouldStop) -> SegmentResult:
    assert spec.status_path is not None
    status = spec.status_path

    def fails() -> bool:
        rows = json.loads(status.read_text(encoding="utf-8"))["batch_size"]
        if Processes.from_environment().rank == 1 and rows > FITS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return should_stop()

    return train_segment(spec, progress, fails)


if __name__ == "__main__":
    sys.exit(run_rank(sys.argv[2], train))
