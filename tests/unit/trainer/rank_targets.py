"""A launcher whose ranks do not train, but act as ``profile.options`` of the spec says."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from ratchet.processes.fork_server import Progress
from trainer.distributed import Processes
from trainer.launch import ShouldStop, launch_ranks, run_rank
from trainer.segment import ErrorKind, SegmentResult, SegmentSpec


def launch(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return launch_ranks(spec, progress, module=__name__)


def launch_with_signs_of_life(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Reports progress until each rank has, so that a stall begins there, however slowly this machine starts ranks."""
    started: set[int] = set()
    all_started = threading.Event()

    def note(message: dict[str, Any]) -> None:
        progress(message)
        started.add(message["rank"])
        if len(started) == spec["ranks"]:
            all_started.set()

    def show_life() -> None:
        while not all_started.wait(0.5):
            progress({"note": "the ranks are starting"})

    threading.Thread(target=show_life, daemon=True).start()
    return launch_ranks(spec, note, module=__name__)


def act(spec: SegmentSpec, progress: Progress, should_stop: ShouldStop) -> SegmentResult:
    """The result has the rank instead of a step."""
    rank = Processes.from_environment().rank
    progress({"rank": rank, "pid": os.getpid()})
    then = spec.config.profile.options["then"][rank]
    if then == "wait":
        wait_for_ever()
    elif then == "be killed":
        victim_note(spec).symlink_to(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    elif then == "raise":
        raise ValueError(f"rank {rank} has nothing to train")
    elif then == "wait for the stop":
        while not should_stop():
            time.sleep(0.01)
    elif then == "fail later":
        wait_for_the_killed(spec)
        return SegmentResult(success=False, error_kind=ErrorKind.UNEXPECTED, global_step=rank)
    elif then == "fail":
        return SegmentResult(success=False, error_kind=ErrorKind.DIVERGED, global_step=rank)
    return SegmentResult(success=True, global_step=rank)


def victim_note(spec: SegmentSpec) -> Path:
    """A link, which is made at once, whose target is the process id of the rank that is killed."""
    folder = spec.config.output.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "killed"


def wait_for_the_killed(spec: SegmentSpec) -> None:
    """Ranks do not start at the same time: a fixed pause may be over before the other rank is there."""
    note = victim_note(spec)
    while not note.is_symlink():
        time.sleep(0.01)
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(int(note.readlink().name)).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def wait_for_ever() -> None:
    while True:
        time.sleep(60)


if __name__ == "__main__":
    sys.exit(run_rank(sys.argv[2], act))
