"""One segment in a child process: JSON in, JSON and two folders out. Knows no ledger, no Redis, no events."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratchet.errors import RatchetError

from trainer.config import parse_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from trainer.processes import Processes
from trainer.result import ErrorKind, TrainingResult
from trainer.stopping import stop_on

SECTIONS = ("model", "hyperparams", "profile", "monitoring", "locked", "environment")


def run_segment(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train one segment in this process and return what became of it; a failed run is a result too.

    ``spec``: the sections of SECTIONS as in the settings; ``data_path`` (JSONL); ``output`` (a folder of this segment
    alone); ``state`` (state folder of the segment before, whose checkpoint is then ``model.path``; absent or null for a
    fresh optimizer, which counts its steps from ``global_step``); ``offset``, ``max_tokens``, ``seed``, ``shuffle``,
    ``status_path`` (optional).

    SIGTERM ends the segment after the running step: it is saved, and ``ended_by`` is ``stopped``.
    """
    with stop_on(signal.SIGTERM) as asked:
        return train_segment(spec, progress, asked.is_set)


def train_segment(
    spec: dict[str, Any], progress: Callable[[dict[str, Any]], None], should_stop: Callable[[], bool]
) -> dict[str, Any]:
    """As ``run_segment``, but without its handling of SIGTERM: ends after the step at which ``should_stop`` is true."""
    status = TrainingStatusWriter(spec.get("status_path") or Path(spec["output"]) / "training_status.json")
    try:
        config = parse_config(_sections(spec))
    except RatchetError as error:
        return _report(TrainingResult(False, error_message=str(error), error_kind=ErrorKind.SETTINGS))
    engine = TrainerEngine(status, report=progress, should_stop=should_stop, note=lambda note: progress({"note": note}))
    return _report(engine.run_job(config))


def main() -> None:
    """``torchrun -m trainer.segment SPEC.json``: one process among several; the first prints the result."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = run_segment(spec, lambda _: None)
    if Processes.from_environment().is_first:
        print(json.dumps(result))
    sys.exit(0 if result["success"] else 1)


def _sections(spec: Mapping[str, Any]) -> dict[str, Any]:
    sections: dict[str, Any] = {name: spec[name] for name in SECTIONS if name in spec}
    sections["data"] = {
        "dataset_path": spec["data_path"],
        "offset": spec.get("offset", 0),
        **{name: spec[name] for name in ("seed", "shuffle", "max_tokens") if name in spec},
    }
    sections["output"] = {
        "output_dir": spec["output"],
        "resume_from": spec.get("state"),
        "first_step": spec.get("global_step", 0),
    }
    return sections


def _report(result: TrainingResult) -> dict[str, Any]:
    """The result as JSON: TrainingResult's fields, and those of its summary that the trainer's ledger keeps."""
    fields = asdict(result)
    summary = fields.pop("summary")
    summary.pop("config", None)
    checkpoint, state = fields.pop("last_checkpoint_path"), fields.pop("state_path")
    return {**fields, **summary, "checkpoint": checkpoint, "state": state}


if __name__ == "__main__":
    main()
