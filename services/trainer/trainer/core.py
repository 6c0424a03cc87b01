"""The training engine: one entry point, seven steps, and a value whatever happens."""

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
from ratchet.inference.chat import Tokenizer
from ratchet.inference.digest import weights_digest
from ratchet.inference.dress import Dress
from ratchet.inference.facts import hold, model_facts
from ratchet.settings.training import TrainerConfig

from trainer.callbacks import Progress, ShouldStop
from trainer.dataset import TrainingRows, examples_at, examples_of, prepare_rows
from trainer.form import form_of
from trainer.hardware import Hardware, pick_hardware, release_memory
from trainer.memory import BOOK, MemoryBook, memory_key
from trainer.monitoring import TrainingStatusWriter
from trainer.placing import placed
from trainer.previews import create_preview_backend
from trainer.previews.callback import Previewer, last_rows
from trainer.processes import Processes
from trainer.result import ErrorKind, TrainingResult
from trainer.run import Run, create_run
from trainer.source import with_local_model
from trainer.state import TrainingState, load_state
from trainer.trackers import create_trackers

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
    TransientError: ErrorKind.SURROUNDINGS,
    OSError: ErrorKind.SURROUNDINGS,
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
        """``report`` hears of progress now and then; ``should_stop`` is asked after every step.

        ``note`` hears of each process that has the model in its place: they read it in turns, which can take long.
        """
        self._status = status_writer
        self._report = report
        self._should_stop = should_stop
        self._note = note
        self._processes = Processes.from_environment()

    def run_job(self, config: TrainerConfig) -> TrainingResult:
        """Train, save, and return what became of it. Never raises: a failure is a result with its kind."""
        begun_at = time.monotonic()
        if self._processes.is_first:
            self._status.start(**_told_at_start(config))
        result = self._within_memory(config)
        result = replace(result, runtime_sec=time.monotonic() - begun_at)
        if self._processes.is_first:
            self._status.write(**_told_at_the_end(result))
        elif not result.success:
            self._status.amend(**_told_at_the_end(result))
        return result

    def _within_memory(self, config: TrainerConfig) -> TrainingResult:
        """Try, in smaller and smaller micro-batches where memory is short, and remember what fitted on this device.

        Among several processes one that tried again would be out of step with the others: the run fails, half is
        remembered, and the summary's ``fits_smaller`` says so to whoever starts them all again.
        """
        book, wanted = MemoryBook(self._status.path.parent / BOOK), config.hyperparams.batch_size
        config = self._as_remembered(config, book)
        result = self._tried(config)
        while result.error_kind is ErrorKind.OUT_OF_MEMORY and (smaller := in_smaller_batches(config)) is not None:
            release_memory()
            config = smaller
            if self._processes.world > 1:
                book.remember(memory_key(config, pick_hardware(config, self._processes)), config.hyperparams.batch_size)
                return replace(result, summary={"fits_smaller": config.hyperparams.batch_size})
            result = self._tried(config)
        if result.success and config.hyperparams.batch_size < wanted and self._processes.is_first:
            book.remember(memory_key(config, pick_hardware(config, self._processes)), config.hyperparams.batch_size)
        return result

    def _as_remembered(self, config: TrainerConfig, book: MemoryBook) -> TrainerConfig:
        """The configuration in micro-batches that are known to fit."""
        try:
            fits = book.recall(memory_key(config, pick_hardware(config, self._processes)))
        except SettingsError:
            return config
        while fits is not None and config.hyperparams.batch_size > fits:
            smaller = in_smaller_batches(config)
            if smaller is None:
                break
            config = smaller
        return config

    def _tried(self, config: TrainerConfig) -> TrainingResult:
        self._write(state="loading", batch_size=config.hyperparams.batch_size)
        try:
            return self._run(config)
        except Exception as error:  # noqa: BLE001 - the promise of run_job is a value
            return _failure(error)

    def _run(self, config: TrainerConfig) -> TrainingResult:
        config = with_local_model(config)
        hardware, state = self._validate(config)
        trackers = create_trackers(config.environment.report_to, self._write)
        dress = self._dress(config)
        self._write(
            device=hardware.device,
            processes=hardware.processes.world,
            precision=hardware.precision,
            system_prompt=dress.system_prompt,
        )
        trainable = placed(config, hardware, dress.profile)
        self._note("has read the model")
        self._write(attention=trainable.attention)
        rows = self._prepare(config, dress, trainable.tokenizer)
        run = create_run(config, hardware, trainable, rows, state, self._tell_progress, self._should_stop)
        run.trainer.args.output_dir = str(self._status.path.parent)  # for trackers: it outlives a segment's folder
        for tracker in trackers:
            tracker.first_step = run.plan.global_step
            run.trainer.add_callback(tracker)
        self._preview(config, run, dress)
        self._tell("training", run.reporter.snapshot(0))
        run.train()
        self._tell("saving", run.reporter.snapshot(run.steps))
        return run.save()

    def _validate(self, config: TrainerConfig) -> tuple[Hardware, TrainingState | None]:
        """Everything that can be known to be wrong before a model is loaded."""
        hardware = pick_hardware(config, self._processes)
        if not config.data.dataset_path.is_file():
            raise DataError(f"{config.data.dataset_path}: no such file (data.dataset_path)")
        _require_the_model_meant(config)
        if config.output.resume_from is None:
            return hardware, None
        state = load_state(config.output.resume_from)
        _require_same(config, state)
        return hardware, state

    def _dress(self, config: TrainerConfig) -> Dress:
        today = datetime.now(UTC).date().isoformat()
        profile = config.profile
        return Dress.named(profile.name, profile.options, config.monitoring.system_prompt_base, today)

    def _prepare(self, config: TrainerConfig, dress: Dress, tokenizer: Tokenizer) -> TrainingRows:
        return prepare_rows(
            examples_of(config.data.dataset_path),
            dress.profile,
            tokenizer,
            system_prompt=dress.system_prompt,
            max_length=config.hyperparams.max_length,
        )

    def _preview(self, config: TrainerConfig, run: Run, dress: Dress) -> None:
        """Have the first process ask a few questions now and then."""
        monitoring = config.monitoring
        if not self._processes.is_first:
            return
        if run.hardware.sharded and monitoring.preview_backend == "local":
            self._write(preview_error="a model that processes share cannot answer by itself: use remote_3090 or none")
            return
        model = run.trainer.accelerator.unwrap_model(run.trainer.model)
        backend = create_preview_backend(monitoring, model, run.tokenizer, run.hardware, dress)
        if backend is None:
            return
        examples = examples_at(config.data.dataset_path, last_rows(run.plan, monitoring.preview_samples))
        journal = self._status.path.parent / JOURNAL
        run.trainer.add_callback(Previewer(backend, examples, run.plan, monitoring, dress, journal, self._write))

    def _tell_progress(self, progress: dict[str, Any]) -> None:
        self._tell("training", progress)

    def _tell(self, state: str, progress: dict[str, Any]) -> None:
        self._write(state=state, **progress)
        if not self._processes.is_first:
            return
        try:
            self._report({"state": state, **progress})
        except Exception as error:  # noqa: BLE001 - who listens may fail, training goes on
            self._write(report_error=f"{type(error).__name__}: {error}")

    def _write(self, **fields: Any) -> None:
        if self._processes.is_first:
            self._status.write(**fields)


def in_smaller_batches(config: TrainerConfig) -> TrainerConfig | None:
    """The same optimizer steps with at most half the rows in memory at once; None where one row is all there is."""
    rows, accumulation = config.hyperparams.batch_size, config.hyperparams.gradient_accumulation
    smaller = next((size for size in range(rows // 2, 0, -1) if rows * accumulation % size == 0), None)
    if smaller is None:
        return None
    split = {"batch_size": smaller, "gradient_accumulation": rows * accumulation // smaller}
    return config.model_copy(update={"hyperparams": config.hyperparams.model_copy(update=split)})


def _require_the_model_meant(config: TrainerConfig) -> None:
    """Hold the model to what is locked. Raises SettingsError."""
    folder, tokenizer = Path(config.model.path), Path(config.model.tokenizer_path or config.model.path)
    if folder.is_dir() and tokenizer.is_dir():
        hold(config.locked, model_facts(folder, tokenizer), config.hyperparams.max_length, config.model.path)


def _require_same(config: TrainerConfig, state: TrainingState) -> None:
    """Raise ResumeError unless the state was made on these weights, with the same of them trained."""
    form = form_of(config.model)
    if form != state.form:
        raise ResumeError(
            f"{config.output.resume_from} is of {state.form}, the settings are {form} (model.lora_rank …)"
        )
    expected = state.base or state.weights
    weights = weights_digest(Path(config.model.path))
    if weights != expected:
        raise ResumeError(
            f"{config.output.resume_from} goes on from weights {expected[:12]}…, "
            f"but {config.model.path} holds {weights[:12]}… (model.path)"
        )


def _told_at_start(config: TrainerConfig) -> dict[str, Any]:
    return {
        "model": config.model.path,
        "dataset": str(config.data.dataset_path),
        "profile": config.profile.name,
        "max_length": config.hyperparams.max_length,
    }


def _told_at_the_end(result: TrainingResult) -> dict[str, Any]:
    """A failed run keeps the step and the loss that it had come to."""
    if not result.success:
        return {"state": "failed", "error": result.error_message, "error_kind": result.error_kind}
    return {
        "state": "finished" if result.finished else "interrupted",
        "step": result.global_step,
        "loss": result.final_loss,
        "checkpoint": result.last_checkpoint_path,
        "rows_too_long": result.summary["rows_too_long"],
    }


def _failure(error: Exception) -> TrainingResult:
    kind = _kind(error)
    told = kind is not ErrorKind.UNEXPECTED
    message = f"{type(error).__name__}: {error}" if told else "".join(traceback.format_exception(error))
    return TrainingResult(success=False, error_message=message, error_kind=kind)


def _kind(error: Exception) -> ErrorKind:
    """A host without memory makes torch raise a bare RuntimeError, known by its words."""
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error).lower():
        return ErrorKind.OUT_OF_MEMORY
    return next((kind for type_, kind in _KINDS.items() if isinstance(error, type_)), ErrorKind.UNEXPECTED)
