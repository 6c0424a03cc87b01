"""A whole file, segment after segment, each from the exact state of the last: what `trainer` runs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ratchet.inference.tiny import resolve_model
from ratchet.settings.training import TrainerConfig

from trainer.callbacks import ShouldStop
from trainer.core import TrainerEngine
from trainer.processes import Processes
from trainer.result import MODEL_FOLDER, STATE_FOLDER, TrainingResult
from trainer.run_folder import UNDER_WAY, finish, forget_beyond, keep, resumed_step


def train_file(engine: TrainerEngine, config: TrainerConfig, should_stop: ShouldStop) -> TrainingResult:
    """Train until every row is done, ``hyperparams.max_steps`` is reached, or a stop is asked for.

    Each segment but the last leaves a ``checkpoint-STEP`` in ``output.output_dir``; the last one ``final_model`` and
    ``state``. The result is the last segment's. A failed segment leaves those before it as they are.
    """
    folder, processes = config.output.output_dir, Processes.from_environment()
    begun_at = resumed_step(config.output.resume_from)
    if processes.is_first:
        shutil.rmtree(folder / UNDER_WAY, ignore_errors=True)
    segment = _within(_with_ground(config), output_dir=folder / UNDER_WAY)
    while True:
        result = engine.run_job(segment)
        if not result.success:
            return result
        if processes.is_first:
            forget_beyond(folder, begun_at)
        begun_at = result.global_step
        if result.finished or should_stop() or result.global_step == config.hyperparams.max_steps:
            if processes.is_first:
                finish(folder)
            return _placed(result, folder)
        if processes.is_first:
            keep(folder, result.global_step)
        processes.wait()
        segment = _after(segment, folder / f"checkpoint-{result.global_step}")


def _after(segment: TrainerConfig, checkpoint: Path) -> TrainerConfig:
    """The configuration of the segment that goes on from there; adapters go on standing on the same weights."""
    model = segment.model
    if not model.lora_rank:
        model = model.model_copy(update={"path": str(checkpoint / MODEL_FOLDER)})
    data = segment.data.model_copy(update={"offset": 0})
    goes_on = segment.model_copy(update={"model": model, "data": data})
    return _within(goes_on, resume_from=checkpoint / STATE_FOLDER)


def _with_ground(config: TrainerConfig) -> TrainerConfig:
    """The built-in model as a folder that outlives a segment, since adapters stand on it."""
    path = resolve_model(config.model.path, config.output.output_dir)
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def _within(config: TrainerConfig, **output: Path) -> TrainerConfig:
    return config.model_copy(update={"output": config.output.model_copy(update=output)})


def _placed(result: TrainingResult, folder: Path) -> TrainingResult:
    return replace(result, last_checkpoint_path=str(folder / MODEL_FOLDER), state_path=str(folder / STATE_FOLDER))
