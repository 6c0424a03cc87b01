"""A run of the command `trainer`: training a whole file, segment by segment, and the checkpoints in its folder.

Each segment starts from the exact state of the previous one. This module imports no torch, so that the command line can
inspect a folder quickly.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.errors import SettingsError
from ratchet.inference.model_folder import file_sha256
from ratchet.inference.tiny import resolve_model
from ratchet.settings.training import TrainerConfig

from trainer.segment import MODEL_FOLDER, STATE_FILE, STATE_FOLDER, TrainingResult

if TYPE_CHECKING:
    from trainer.callbacks import ShouldStop
    from trainer.core import TrainerEngine

IN_PROGRESS = ".segment"
KEPT_STATES = 2


def latest_checkpoint(folder: Path) -> Path:
    """The complete checkpoint with the highest step: ``folder`` itself or a ``checkpoint-STEP`` in it.

    Raises SettingsError if there is none.
    """
    found = {step: place for place in [folder, *_checkpoints(folder)] if (step := _step(place)) is not None}
    if not found:
        raise SettingsError(
            f"{folder} is no run to resume: {MODEL_FOLDER} and {STATE_FOLDER} are expected in it or in a "
            "checkpoint-STEP folder in it (--resume-from-checkpoint). Leave the flag out to start a new run."
        )
    return found[max(found)]


def require_folder(folder: Path) -> None:
    """Create the folder. Raises SettingsError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(f"cannot write to {folder} (--output-dir): {error.strerror}.") from error


def finished_step(folder: Path, rows: Path) -> int | None:
    """The step of the checkpoint in ``folder`` if it was trained on all of these rows; None if rows are left."""
    state = _state(folder)
    if state is None or not rows.is_file():
        return None
    position = state["position"]
    is_done = position["offset"] >= position["rows"] and position["digest"] == file_sha256(rows)
    return int(state["global_step"]) if is_done else None


def resumed_step(resume_from: Path | None) -> int:
    """The global step of the state to resume from; -1 for a new run."""
    step = _step(resume_from.parent) if resume_from is not None else None
    return -1 if step is None else step


def drop_states_after(folder: Path, step: int) -> None:
    """Remove the states, but not the models, of an earlier run after ``step``; this run does not continue them."""
    for place in [folder, *_checkpoints(folder)]:
        if (found := _step(place)) is not None and found > step:
            shutil.rmtree(place / STATE_FOLDER)


def keep_checkpoint(folder: Path, step: int) -> Path:
    """Rename the segment in progress to ``checkpoint-STEP``. Only the models of older checkpoints are kept."""
    kept = folder / f"checkpoint-{step}"
    shutil.rmtree(kept, ignore_errors=True)
    (folder / IN_PROGRESS).rename(kept)
    for older in sorted(_checkpoints(folder), key=lambda place: _step(place) or 0)[:-KEPT_STATES]:
        shutil.rmtree(older / STATE_FOLDER, ignore_errors=True)
    return kept


def promote(folder: Path) -> None:
    """Move the checkpoint and state of the last segment to ``final_model`` and ``state``.

    The old state is moved away first and the new one comes last, so that after a kill in between no state is next to a
    checkpoint that it does not belong to.
    """
    segment = folder / IN_PROGRESS
    before = segment / "before"
    before.mkdir()
    for name in (STATE_FOLDER, MODEL_FOLDER):
        if (folder / name).exists():
            (folder / name).rename(before / name)
    for name in (MODEL_FOLDER, STATE_FOLDER):
        (segment / name).rename(folder / name)
    shutil.rmtree(segment)


def _checkpoints(folder: Path) -> list[Path]:
    return [place for place in folder.glob("checkpoint-*") if place.is_dir()]


def _step(place: Path) -> int | None:
    """The global step of a complete checkpoint; None for anything else."""
    state = _state(place)
    return int(state["global_step"]) if state is not None and (place / MODEL_FOLDER).is_dir() else None


def _state(place: Path) -> dict[str, Any] | None:
    """The fields of a checkpoint's state; None if it cannot be read."""
    try:
        state: dict[str, Any] = json.loads((place / STATE_FOLDER / STATE_FILE).read_text(encoding="utf-8"))
        return {**state, "global_step": int(state["global_step"]), "position": dict(state["position"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def train_file(engine: TrainerEngine, config: TrainerConfig, should_stop: ShouldStop) -> TrainingResult:
    """Train until every row is done, ``hyperparams.max_steps`` is reached, or ``should_stop`` returns True.

    Each segment but the last writes a ``checkpoint-STEP`` in ``output.output_dir``; the last one writes ``final_model``
    and ``state``. Returns the last segment's result. A failed segment leaves the earlier ones unchanged.
    """
    folder, processes = config.output.output_dir, engine.processes
    begun_at = resumed_step(config.output.resume_from)
    if processes.is_main:
        shutil.rmtree(folder / IN_PROGRESS, ignore_errors=True)
    segment = _with_output(_with_local_model(config), output_dir=folder / IN_PROGRESS)
    while True:
        result = engine.run_job(segment)
        if not result.success:
            return result
        if processes.is_main:
            drop_states_after(folder, begun_at)
        begun_at = result.global_step
        if result.finished or should_stop() or result.global_step == config.hyperparams.max_steps:
            if processes.is_main:
                promote(folder)
            return _at_final_place(result, folder)
        if processes.is_main:
            keep_checkpoint(folder, result.global_step)
        processes.barrier()
        segment = _after(segment, folder / f"checkpoint-{result.global_step}")


def _after(segment: TrainerConfig, checkpoint: Path) -> TrainerConfig:
    """The configuration of the segment that resumes from this checkpoint. Adapters stay on the same base weights."""
    model = segment.model
    if not model.lora_rank:
        model = model.model_copy(update={"path": str(checkpoint / MODEL_FOLDER)})
    data = segment.data.model_copy(update={"offset": 0})
    resumed = segment.model_copy(update={"model": model, "data": data})
    return _with_output(resumed, resume_from=checkpoint / STATE_FOLDER)


def _with_local_model(config: TrainerConfig) -> TrainerConfig:
    """Build the built-in model in a folder that outlives the segments, since adapters need their base weights."""
    path = resolve_model(config.model.path, config.output.output_dir)
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def _with_output(config: TrainerConfig, **output: Path) -> TrainerConfig:
    return config.model_copy(update={"output": config.output.model_copy(update=output)})


def _at_final_place(result: TrainingResult, folder: Path) -> TrainingResult:
    return replace(result, last_checkpoint_path=str(folder / MODEL_FOLDER), state_path=str(folder / STATE_FOLDER))
