"""A launcher whose ranks train nothing, but do what the spec tells each of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from ratchet.processes.fork_server import Progress
from trainer.distributed import Processes
from trainer.launch import ShouldStop, launch_ranks, run_rank


def launch(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return launch_ranks({**spec, "ranks": len(spec["then"])}, progress, module=__name__)


def act(spec: dict[str, Any], progress: Progress, should_stop: ShouldStop) -> dict[str, Any]:
    rank = Processes.from_environment().rank
    progress({"rank": rank, "pid": os.getpid()})
    then = spec["then"][rank]
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
        return {"success": False, "error_kind": "unexpected", "rank": rank}
    return {"success": then != "fail", "error_kind": "diverged", "rank": rank}


def wait_for_ever() -> None:
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit(run_rank(sys.argv[1], act))
