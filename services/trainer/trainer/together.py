"""One segment in as many processes as the settings say, started and watched as one. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from ratchet.errors import ChildFailed, TrainingError
from ratchet.leases.share import training_processes
from ratchet.systems import Work

TARGET = "trainer.segment:run_segment"


def run_together(
    work: Work, spec: dict[str, Any], on_progress: Callable[[dict[str, Any]], None], should_end: Callable[[], bool]
) -> dict[str, Any]:
    """Train a segment, again in smaller micro-batches where one of several processes had no memory for its own.

    Raises ChildFailed when one of them dies or stalls (then none is left), TrainingError where there is no memory to
    start with.
    """
    world = training_processes(work.settings)
    while True:
        first, *beside = in_each(spec, world)
        try:
            result = work.child(TARGET, first, on_progress, should_end, beside, has_failed)
        except ChildFailed as error:
            if error.out_of_memory:
                raise TrainingError(
                    f"no memory for batch_size {work.settings.hyperparams.batch_size}: halve hyperparams.batch_size "
                    "and double hyperparams.gradient_accumulation."
                ) from error
            raise
        if not result.get("fits_smaller"):
            return result
        work.progress(f"no memory: again with a batch_size of {result['fits_smaller']}")


def in_each(spec: dict[str, Any], world: int) -> list[dict[str, Any]]:
    """What each process is told. Where they are several: who it is among them, and where they meet, anew each time."""
    if world == 1:
        return [spec]
    output = Path(spec["output"])
    meeting = output.with_name(f"{output.name}-meeting-{uuid4().hex[:8]}")
    on_gpu = spec["environment"]["device"] != "cpu"
    place = {"world": world, "meeting": str(meeting), "on_gpu": on_gpu}
    return [{**spec, "processes": {**place, "rank": rank}} for rank in range(world)]


def has_failed(result: dict[str, Any]) -> bool:
    return not result["success"]
