"""A checkpoint that questions are put to, in a child process: how it is loaded is told as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.inference.dress import Dress, day_of
from ratchet.inference.generator import Decoding, Generation
from ratchet.settings import Settings
from ratchet.settings.inference import InferenceSettings
from ratchet.tasks.graders import item_key

from miner.answered import Answered

if TYPE_CHECKING:
    from ratchet.inference.local import LocalGenerator


class ModelSpec(BaseModel):
    """A checkpoint's folder, the digest that its weights must have, and how it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    weights: str
    decoding: Decoding
    inference: InferenceSettings = InferenceSettings()
    profile: str = "plain"
    profile_options: dict[str, Any] = Field(default_factory=dict)
    system_prompt: str = ""
    day: str = ""

    @classmethod
    def configured(cls, settings: Settings, checkpoint: Path, weights: str, at: float) -> Self:
        """As testing asks it; ``at`` is a moment of the day that the system turn names."""
        return cls(
            checkpoint=checkpoint,
            weights=weights,
            decoding=Decoding(max_new_tokens=settings.suites.max_new_tokens),
            inference=settings.inference,
            profile=settings.profile.name,
            profile_options=settings.profile.options,
            system_prompt=settings.monitoring.system_prompt_base,
            day=day_of(at),
        )

    @property
    def dress(self) -> Dress:
        return Dress.named(self.profile, self.profile_options, self.system_prompt, self.day)


class AskedModel:
    """The loaded model. Loading raises BrokenCheckpoint for a folder that is not what it should be."""

    def __init__(self, spec: ModelSpec):
        from ratchet.inference.local import LocalGenerator

        self._spec = spec
        self._dress = spec.dress
        self._generator: LocalGenerator = LocalGenerator.load(
            spec.checkpoint, spec.inference, spec.weights, self._dress
        )

    def ask(self, items: Sequence[Example], decoding: Decoding | None = None) -> list[Answered]:
        """One graded answer an item, in order, the greedy ones with the loss of the right answer.

        An item that stands there twice is sampled twice.
        """
        chosen = decoding or self._spec.decoding
        golds = [self._dress.example(item).answer for item in items] if chosen.temperature == 0 else None
        answered: dict[int, Answered] = {}
        for batch, generations in self._generator.batches([item.prompt for item in items], chosen, drafts=golds):
            answered.update(
                (index, self._graded(items[index], generation))
                for index, generation in zip(batch, generations, strict=True)
            )
        return [answered[index] for index in range(len(items))]

    def _graded(self, item: Example, generation: Generation) -> Answered:
        finished, scores = generation.finish_reason == "stop", generation.draft_logprobs
        key, text, logprobs = item_key(item), generation.text, generation.token_logprobs
        found = Answered.of(item, key, text, logprobs, self._dress, finished=finished)
        return found.model_copy(update={"gold_nll": -sum(scores) / len(scores)}) if scores else found
