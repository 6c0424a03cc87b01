"""Experiment trackers, by the Trainer's own callbacks, of which none can stop training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from ratchet.errors import SettingsError
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

Tell = Callable[..., None]
"""Takes fields of the status."""


class Guarded(TrainerCallback):
    """A tracker that is left alone after its first failure; the status tells of it as ``tracker_error``."""

    def __init__(self, tracker: TrainerCallback, tell: Tell) -> None:
        self.tracker = tracker
        self.first_step = 0
        """Added to the segment's own steps, so that curves go on where the segment before ended."""
        self._tell = tell
        self._has_failed = False

    def call(self, event: str, args: TrainingArguments, state: TrainerState, *rest: Any, **more: Any) -> Any:
        if self._has_failed:
            return None
        seen = copy(state)
        seen.global_step += self.first_step
        try:
            return getattr(self.tracker, event)(args, seen, *rest, **more)
        except Exception as error:  # noqa: BLE001 - a monitor never stops training
            self._has_failed = True
            self._tell(tracker_error=f"{type(self.tracker).__name__}.{event}: {type(error).__name__}: {error}")
            return None


def _passed_on(event: str) -> Callable[..., Any]:
    def method(self: Guarded, *arguments: Any, **more: Any) -> Any:
        return self.call(event, *arguments, **more)

    return method


for _event in [name for name in vars(TrainerCallback) if name.startswith("on_")]:
    setattr(Guarded, _event, _passed_on(_event))


def create_trackers(names: Sequence[str], tell: Tell) -> list[Guarded]:
    """The callbacks of ``environment.report_to``. Raises SettingsError for an unknown name or an absent library."""
    trackers: list[Guarded] = []
    for name in names:
        try:
            trackers += [Guarded(tracker(), tell) for tracker in get_reporting_integration_callbacks([name])]
        except (ValueError, RuntimeError, ImportError) as error:
            raise SettingsError(f"environment.report_to {name!r}: {error}") from error
    return trackers
