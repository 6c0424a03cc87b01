"""A launcher whose ranks do not train, but act as ``profile.options`` of the spec says."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from ratchet.processes.fork_server import Progress
from trainer.distributed import Processes
from trainer.launch import ShouldStop, launch_ranks, run_rank
from trainer.segment import ErrorKind, SegmentResult, SegmentSpec


def launch(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return launch_ranks(spec, progress, module=__name__)


def act(spec: SegmentSpec, progress: Progress, should_stop: ShouldStop) -> SegmentResult:
    """The result has the rank instead of a step."""
    rank = Processes.from_environment().rank
    progress({"rank": rank, "pid": os.getpid()})
    then = spec.config.profile.options["then"][rank]
    if then == "wait":
        wait_for_ever()
    elif then == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif then == "raise":
        raise ValueError(f"rank {rank} has nothing to train")
    elif then == "wait for the stop":
        while not should_stop():
            time.sleep(0.01)
    elif then == "fail later":
        time.sleep(0.5)
        return SegmentResult(success=False, error_kind=ErrorKind.UNEXPECTED, global_step=rank)
    elif then == "fail":
        return SegmentResult(success=False, error_kind=ErrorKind.DIVERGED, global_step=rank)
    return SegmentResult(success=True, global_step=rank)


def wait_for_ever() -> None:
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit(run_rank(sys.argv[2], act))
