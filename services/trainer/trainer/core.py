"""The training engine: one entry point, seven steps, and always a result.

``TrainerEngine.run_job`` validates, loads the model, prepares the rows, creates the run, trains, previews and saves. It
knows no ledger, Redis or events: a worker runs it in a child process, and the command `trainer` runs it directly.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from ratchet.errors import (
    ArtifactError,
    ChatTemplateError,
    DataError,
    Diverged,
    ResumeError,
    SettingsError,
    TransientError,
    UnknownPlugin,
)
from ratchet.evaluation.preview import JOURNAL
from ratchet.inference.chat_template import Tokenizer
from ratchet.inference.model_folder import check_locked, read_model_info, weights_digest
from ratchet.inference.prompt_format import PromptFormat
from ratchet.settings.training import TrainerConfig

from trainer.callbacks import Progress, ShouldStop, create_trackers
from trainer.checkpoint import TrainingState, load_state
from trainer.dataset import TrainingRows, examples_at, examples_of, prepare_rows
from trainer.distributed import Processes
from trainer.hardware import CACHE_FILE, BatchSizeCache, Hardware, cache_key, pick_hardware, release_memory
from trainer.model import load_on_device, resolve_local_model
from trainer.monitoring import TrainingStatusWriter
from trainer.previews import PreviewCallback, create_preview_backend, last_rows
from trainer.run import Run, create_run
from trainer.segment import ErrorKind, TrainingResult, halve_micro_batch, limit_micro_batch, training_mode

__all__ = ["TrainerEngine", "TrainingResult"]

_KINDS: Mapping[type[Exception], ErrorKind] = {
    torch.OutOfMemoryError: ErrorKind.OUT_OF_MEMORY,
    MemoryError: ErrorKind.OUT_OF_MEMORY,
    Diverged: ErrorKind.DIVERGED,
    ResumeError: ErrorKind.RESUME,
    ChatTemplateError: ErrorKind.TEMPLATE,
    DataError: ErrorKind.DATA,
    ArtifactError: ErrorKind.MODEL,
    SettingsError: ErrorKind.SETTINGS,
    UnknownPlugin: ErrorKind.SETTINGS,
    TransientError: ErrorKind.TRANSIENT,
    OSError: ErrorKind.TRANSIENT,
}


class TrainerEngine:
    """Trains one segment of one file: to its end, or until the time or the steps of a segment are used up."""

    def __init__(
        self,
        status_writer: TrainingStatusWriter,
        *,
        report: Progress = lambda _progress: None,
        should_stop: ShouldStop = lambda: False,
        note: Callable[[str], None] = lambda _note: None,
    ) -> None:
        """``report`` is called with progress, ``should_stop`` after every step.

        ``note`` is called in each of several processes once it has loaded the model, since loading a sharded model one
        process at a time takes long.
        """
        self._status = status_writer
        self._report = report
        self._should_stop = should_stop
        self._note = note
        self.processes = Processes.from_environment()

    def run_job(self, config: TrainerConfig) -> TrainingResult:
        """Train, save, and return the result. Never raises: a failure is a result with an error kind."""
        begun_at = time.monotonic()
        if self.processes.is_main:
            self._status.start(**_first_fields(config))
        result = self._within_memory(config)
        result = replace(result, runtime_sec=time.monotonic() - begun_at)
        if self.processes.is_main:
            self._status.write(**_last_fields(result))
        elif not result.success:
            self._status.amend(**_last_fields(result))
        return result

    def _within_memory(self, config: TrainerConfig) -> TrainingResult:
        """Train, with smaller micro-batches each time memory runs out, and remember the size that fits this device.

        One of several processes cannot retry alone, since the others would wait for it in a collective. So the run
        fails, the halved size is remembered, and with ``fits_smaller`` in the summary the launcher restarts all.
        """
        cache, wanted = BatchSizeCache(self._status.path.parent / CACHE_FILE), config.hyperparams.batch_size
        config = self._with_cached_size(config, cache)
        result = self._attempt(config)
        while result.error_kind is ErrorKind.OUT_OF_MEMORY and (smaller := halve_micro_batch(config)) is not None:
            release_memory()
            config = smaller
            if self.processes.world_size > 1:
                cache.put(cache_key(config, pick_hardware(config, self.processes)), config.hyperparams.batch_size)
                return replace(result, summary={"fits_smaller": config.hyperparams.batch_size})
            result = self._attempt(config)
        if result.success and config.hyperparams.batch_size < wanted and self.processes.is_main:
            cache.put(cache_key(config, pick_hardware(config, self.processes)), config.hyperparams.batch_size)
        return result

    def _with_cached_size(self, config: TrainerConfig, cache: BatchSizeCache) -> TrainerConfig:
        """The configuration with a micro-batch size that is known to fit."""
        try:
            fits = cache.get(cache_key(config, pick_hardware(config, self.processes)))
        except SettingsError:
            return config
        return config if fits is None else limit_micro_batch(config, fits)

    def _attempt(self, config: TrainerConfig) -> TrainingResult:
        self._write(state="loading", batch_size=config.hyperparams.batch_size)
        try:
            return self._run(config)
        except Exception as error:  # noqa: BLE001 - run_job always returns a result
            return _failure(error)

    def _run(self, config: TrainerConfig) -> TrainingResult:
        config = resolve_local_model(config)
        hardware, state = self._validate(config)
        trackers = create_trackers(config.environment.report_to, self._write)
        prompt_format = self._prompt_format(config)
        self._write(
            device=hardware.device,
            processes=hardware.processes.world_size,
            precision=hardware.precision,
            system_prompt=prompt_format.system_prompt,
        )
        trainable = load_on_device(config, hardware, prompt_format.profile)
        if self.processes.world_size > 1:
            self._note("has loaded the model")
        self._write(attention=trainable.attention)
        rows = self._prepare(config, prompt_format, trainable.tokenizer)
        run = create_run(config, hardware, trainable, rows, state, self._report_training, self._should_stop)
        run.trainer.args.output_dir = str(self._status.path.parent)  # for trackers; it outlives the segment's folder
        for tracker in trackers:
            tracker.first_step = run.plan.global_step
            run.trainer.add_callback(tracker)
        self._preview(config, run, prompt_format)
        self._report_state("training", run.reporter.snapshot(0))
        run.train()
        self._report_state("saving", run.reporter.snapshot(run.steps))
        return run.save()

    def _validate(self, config: TrainerConfig) -> tuple[Hardware, TrainingState | None]:
        """Raise for every error that can be found before the model is loaded."""
        hardware = pick_hardware(config, self.processes)
        if not config.data.dataset_path.is_file():
            raise DataError(f"{config.data.dataset_path}: no such file (data.dataset_path)")
        _require_locked_model(config)
        if config.output.resume_from is None:
            return hardware, None
        state = load_state(config.output.resume_from)
        _require_matching_state(config, state)
        return hardware, state

    def _prompt_format(self, config: TrainerConfig) -> PromptFormat:
        today = datetime.now(UTC).date().isoformat()
        profile, system_prompt = config.profile, config.monitoring.system_prompt_base
        return PromptFormat.named(profile.name, profile.options, system_prompt, today, profile.template_variables)

    def _prepare(self, config: TrainerConfig, prompt_format: PromptFormat, tokenizer: Tokenizer) -> TrainingRows:
        return prepare_rows(
            examples_of(config.data.dataset_path),
            prompt_format.profile,
            tokenizer,
            system_prompt=prompt_format.system_prompt,
            max_length=config.hyperparams.max_length,
            template_variables=prompt_format.template_variables,
        )

    def _preview(self, config: TrainerConfig, run: Run, prompt_format: PromptFormat) -> None:
        """Add the callback that previews, in the main process."""
        monitoring = config.monitoring
        if not self.processes.is_main:
            return
        if run.hardware.sharded and monitoring.preview_backend == "local":
            self._write(preview_error="one process cannot generate with a sharded model: use remote_3090 or none")
            return
        model = run.trainer.accelerator.unwrap_model(run.trainer.model)
        backend = create_preview_backend(monitoring, model, run.tokenizer, run.hardware, prompt_format)
        if backend is None:
            return
        examples = examples_at(config.data.dataset_path, last_rows(run.plan, monitoring.preview_samples))
        journal = self._status.path.parent / JOURNAL
        run.trainer.add_callback(
            PreviewCallback(backend, examples, run.plan, monitoring, prompt_format, journal, self._write)
        )

    def _report_training(self, progress: dict[str, Any]) -> None:
        self._report_state("training", progress)

    def _report_state(self, state: str, progress: dict[str, Any]) -> None:
        self._write(state=state, **progress)
        if not self.processes.is_main:
            return
        try:
            self._report({"state": state, **progress})
        except Exception as error:  # noqa: BLE001 - a failing listener must not stop training
            self._write(report_error=f"{type(error).__name__}: {error}")

    def _write(self, **fields: Any) -> None:
        if self.processes.is_main:
            self._status.write(**fields)


def _require_locked_model(config: TrainerConfig) -> None:
    """Raise SettingsError if the model differs from the locked settings."""
    folder, tokenizer = Path(config.model.path), Path(config.model.tokenizer_path or config.model.path)
    if folder.is_dir() and tokenizer.is_dir():
        info = read_model_info(folder, tokenizer)
        check_locked(config.locked, info, config.hyperparams.max_length, config.model.path)


def _require_matching_state(config: TrainerConfig, state: TrainingState) -> None:
    """Raise ResumeError unless the state belongs to these weights and this training mode."""
    mode = training_mode(config.model)
    if mode != state.mode:
        raise ResumeError(
            f"{config.output.resume_from} was trained as {state.mode}, but the settings are {mode} (model.lora_rank …)"
        )
    expected = state.base_weights or state.weights
    weights = weights_digest(Path(config.model.path))
    if weights != expected:
        raise ResumeError(
            f"{config.output.resume_from} needs the weights {expected[:12]}…, "
            f"but {config.model.path} holds {weights[:12]}… (model.path)"
        )


def _first_fields(config: TrainerConfig) -> dict[str, Any]:
    return {
        "model": config.model.path,
        "dataset": str(config.data.dataset_path),
        "profile": config.profile.name,
        "max_length": config.hyperparams.max_length,
    }


def _last_fields(result: TrainingResult) -> dict[str, Any]:
    """The status fields of a result. After a failure the last step and loss stay in the status."""
    if not result.success:
        return {"state": "failed", "error": result.error_message, "error_kind": result.error_kind}
    return {
        "state": "finished" if result.finished else "interrupted",
        "step": result.global_step,
        "loss": result.final_loss,
        "checkpoint": result.last_checkpoint_path,
        "rows_too_long": result.summary["rows_too_long"],
        "rows_refused": result.summary["rows_refused"],
    }


def _failure(error: Exception) -> TrainingResult:
    kind = _kind(error)
    is_known = kind is not ErrorKind.UNEXPECTED
    message = f"{type(error).__name__}: {error}" if is_known else "".join(traceback.format_exception(error))
    return TrainingResult(success=False, error_message=message, error_kind=kind)


def _kind(error: Exception) -> ErrorKind:
    """The error's kind. When the host is out of memory, torch raises a bare RuntimeError, recognised by its message."""
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error).lower():
        return ErrorKind.OUT_OF_MEMORY
    return next((kind for type_, kind in _KINDS.items() if isinstance(error, type_)), ErrorKind.UNEXPECTED)
