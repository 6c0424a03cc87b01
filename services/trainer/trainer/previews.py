"""Previews: a few questions that are answered during training.

``PreviewBackend`` is the interface of what answers; ``PreviewCallback`` calls it in a separate thread. A backend that
fails or hangs does not stop training, and previews do not change its results by a single bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from pydantic import SecretStr
from ratchet.data.example import Example
from ratchet.errors import SettingsError
from ratchet.evaluation.preview import Preview, append_previews, graded
from ratchet.inference.chat_template import Tokenizer
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.http_generator import HttpGenerator
from ratchet.inference.local_generator import BatchLimits, LocalGenerator
from ratchet.inference.model_loading import Hardware as InferenceHardware
from ratchet.inference.model_loading import LoadedModel
from ratchet.inference.prompt_format import PromptFormat
from ratchet.settings.serving import InferenceSettings
from ratchet.settings.training import MonitoringSettings
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer.hardware import Hardware

if TYPE_CHECKING:
    from trainer.run import SegmentPlan

IN_TRAINING = "in training"
"""Used in place of a digest, which weights in training do not have."""

TIMEOUT_S = 10.0
DECODING = Decoding(max_new_tokens=128, temperature=0.0)
"""Greedy and short: a preview shows what the model does, and training waits for a local one."""

WriteStatus = Callable[..., None]
"""Called with the fields of the status that a preview changes."""


@runtime_checkable
class PreviewBackend(Protocol):
    """Answers questions during training. It may fail or hang."""

    name: str
    uses_trained_model: bool
    """Whether training has to wait for the answers, because the weights must not change meanwhile."""

    def answer(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        """One answer per chat, in order. The backend, or its server, applies the prompt format."""
        ...


class LocalPreviewBackend:
    """Answers with the model in training, with the profile's prompt format and logits processors, as in serving.

    The model is switched to evaluation mode and back. Global random states are not changed.
    """

    name = "local"
    uses_trained_model = True

    def __init__(
        self, model: Any, tokenizer: Tokenizer, hardware: Hardware, prompt_format: PromptFormat, timeout_s: float
    ) -> None:
        self._model = model
        self._hardware = hardware
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        loaded = LoadedModel(
            model=model,
            tokenizer=tokenizer,
            weights=IN_TRAINING,
            hardware=InferenceHardware(hardware.device, hardware.precision, hardware.attention),
            context=int(context or tokenizer.model_max_length),
        )
        self._generator = LocalGenerator(loaded, InferenceSettings(), prompt_format, BatchLimits(timeout_s=timeout_s))

    def answer(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        was_training = self._model.training
        autocast = torch.autocast(
            self._hardware.device.partition(":")[0],
            self._hardware.compute_dtype,
            enabled=self._hardware.precision != "fp32",
        )
        self._model.eval()
        try:
            with autocast:
                return self._generator.generate(chats, decoding)
        finally:
            self._model.train(was_training)


class Remote3090Backend:
    """Sends the questions to a server with the OpenAI chat API, without retries.

    Such a server has the live weights, not those in training; each answer names its weights.
    """

    name = "remote_3090"
    uses_trained_model = False

    def __init__(self, url: str, model: str, timeout_s: float, api_key: SecretStr | None = None) -> None:
        settings = InferenceSettings(timeout_s=timeout_s, api_key=api_key)
        self._generator = HttpGenerator(url, model, settings, max_attempts=1)

    def answer(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        return self._generator.generate(chats, decoding)


def create_preview_backend(
    monitoring: MonitoringSettings,
    model: Any,
    tokenizer: Tokenizer,
    hardware: Hardware,
    prompt_format: PromptFormat,
    timeout_s: float = TIMEOUT_S,
) -> PreviewBackend | None:
    """The backend of ``monitoring.preview_backend``; None for ``none``. Raises SettingsError without an address."""
    if monitoring.preview_backend == "local":
        return LocalPreviewBackend(model, tokenizer, hardware, prompt_format, timeout_s)
    if monitoring.preview_backend == "none":
        return None
    if monitoring.preview_url is None:
        raise SettingsError("monitoring.preview_backend remote_3090 needs monitoring.preview_url")
    return Remote3090Backend(monitoring.preview_url, monitoring.preview_model, timeout_s, monitoring.preview_api_key)


class PreviewCallback(TrainerCallback):
    """Every ``preview_interval`` steps, previews the rows of the file that are trained last, and records the grades.

    Training waits up to ``timeout_s``, and only for a backend that uses its model. A backend that fails is called again
    at the next interval; one that hangs is not called again until it has answered.
    """

    def __init__(
        self,
        backend: PreviewBackend,
        examples: Mapping[int, Example],
        plan: SegmentPlan,
        monitoring: MonitoringSettings,
        prompt_format: PromptFormat,
        journal: Path,
        write_status: WriteStatus,
        *,
        decoding: Decoding = DECODING,
        timeout_s: float = TIMEOUT_S,
        margin_s: float = 1.0,
    ) -> None:
        """``examples`` are the questions, by line number in the file.

        A backend should time out after ``timeout_s``; ``margin_s`` later it counts as hanging.
        """
        self._backend = backend
        self._examples = examples
        self._plan = plan
        self._monitoring = monitoring
        self._prompt_format = prompt_format
        self._journal = journal
        self._write_status = write_status
        self._decoding = decoding
        self._limit_s = timeout_s + margin_s
        self._thread: threading.Thread | None = None

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        step = self._plan.global_step + state.global_step
        if step % self._monitoring.preview_interval or not self._examples:
            return
        if self._thread is not None and self._thread.is_alive():
            self._write_status(preview_error=f"step {step}: the backend {self._backend.name} has not answered yet")
            return
        self._thread = threading.Thread(target=self._ask, args=(step,), name="preview", daemon=True)
        self._thread.start()
        if self._backend.uses_trained_model:
            self._wait(step)

    def on_train_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Wait for a running preview, up to its timeout."""
        self._wait(self._plan.global_step + state.global_step)

    def _wait(self, step: int) -> None:
        if self._thread is None:
            return
        self._thread.join(self._limit_s)
        if self._thread.is_alive():
            self._write_status(preview_error=f"step {step}: the backend {self._backend.name} hangs; training continues")

    def _ask(self, step: int) -> None:
        try:
            generations = self._backend.answer([example.prompt for example in self._examples.values()], self._decoding)
            previews = self._graded(step, generations)
            append_previews(self._journal, previews)
        except Exception as error:  # noqa: BLE001 - a failing preview must not end the run
            self._write_status(preview_error=f"step {step}: {type(error).__name__}: {error}")
            return
        grades = [preview.correct for preview in previews if preview.correct is not None]
        self._write_status(
            preview_step=step, preview_correct=sum(grades), preview_asked=len(grades), preview_error=None
        )

    def _graded(self, step: int, generations: Sequence[Generation]) -> list[Preview]:
        position = self._plan.position_after(step - self._plan.global_step)
        seen = set(self._plan.order[: position.offset].tolist())
        return [
            graded(
                example,
                generation,
                self._prompt_format,
                at=time.time(),
                step=step,
                backend=self._backend.name,
                line=line,
                seen=line in seen,
            )
            for (line, example), generation in zip(self._examples.items(), generations, strict=True)
        ]


def last_rows(plan: SegmentPlan, count: int) -> list[int]:
    """Line numbers of the rows that are trained last, which stay unseen for as long as possible."""
    return list(dict.fromkeys(plan.order[::-1].tolist()))[:count]
