"""Asking, now and then, in a thread of its own: whatever a backend does, training goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet.data.example import Example
from ratchet.evaluation.preview import Preview, append_previews, graded
from ratchet.inference.dress import Dress
from ratchet.inference.generator import Decoding, Generation
from ratchet.settings.training import MonitoringSettings
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer.plan import SegmentPlan
from trainer.previews.backend import PreviewBackend

Tell = Callable[..., None]
"""Takes the fields of the status that a preview changes."""


class Previewer(TrainerCallback):
    """Every ``preview_interval`` steps, the rows of the file that are trained last are asked, graded and recorded.

    Training waits for a backend that uses its model, as long as ``preview_timeout_s``; for any other it does not. A
    backend that fails is asked again at the next interval; one that hangs is not asked again before it has come back.
    """

    def __init__(
        self,
        backend: PreviewBackend,
        examples: Mapping[int, Example],
        plan: SegmentPlan,
        monitoring: MonitoringSettings,
        dress: Dress,
        journal: Path,
        tell: Tell,
        patience_s: float = 1.0,
    ) -> None:
        """``examples`` are the questions, by their line in the file.

        A backend keeps its own time; ``patience_s`` later it counts as hanging.
        """
        self._backend = backend
        self._examples = examples
        self._plan = plan
        self._monitoring = monitoring
        self._dress = dress
        self._journal = journal
        self._tell = tell
        self._patience_s = patience_s
        self._thread: threading.Thread | None = None
        self._decoding = Decoding(
            max_new_tokens=monitoring.preview_max_tokens, temperature=monitoring.preview_temperature
        )

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        step = self._plan.global_step + state.global_step
        if step % self._monitoring.preview_interval or not self._examples:
            return
        if self._thread is not None and self._thread.is_alive():
            self._tell(preview_error=f"step {step}: the backend {self._backend.name} has not come back yet")
            return
        self._thread = threading.Thread(target=self._ask, args=(step,), name="preview", daemon=True)
        self._thread.start()
        if self._backend.uses_trained_model:
            self._wait(step)

    def on_train_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """A preview that is under way is worth a moment, and no more."""
        self._wait(self._plan.global_step + state.global_step)

    def _wait(self, step: int) -> None:
        if self._thread is None:
            return
        self._thread.join(self._monitoring.preview_timeout_s + self._patience_s)
        if self._thread.is_alive():
            self._tell(preview_error=f"step {step}: the backend {self._backend.name} hangs, training goes on")

    def _ask(self, step: int) -> None:
        try:
            generations = self._backend.answer([example.prompt for example in self._examples.values()], self._decoding)
            previews = self._graded(step, generations)
            append_previews(self._journal, previews)
        except Exception as error:  # noqa: BLE001 - a preview is for looking at: no failure of it may end a run
            self._tell(preview_error=f"step {step}: {type(error).__name__}: {error}")
            return
        right = sum(preview.correct for preview in previews)
        self._tell(preview_step=step, preview_correct=right, preview_asked=len(previews), preview_error=None)

    def _graded(self, step: int, generations: Sequence[Generation]) -> list[Preview]:
        position = self._plan.position_after(step - self._plan.global_step)
        seen = set(self._plan.order[: position.offset].tolist())
        return [
            graded(
                example,
                generation,
                self._dress,
                at=time.time(),
                step=step,
                backend=self._backend.name,
                line=line,
                seen=line in seen,
            )
            for (line, example), generation in zip(self._examples.items(), generations, strict=True)
        ]


def last_rows(plan: SegmentPlan, count: int) -> list[int]:
    """Lines of the rows that the file's order trains last: new to the model for as long as any."""
    return list(dict.fromkeys(plan.order[::-1].tolist()))[:count]
