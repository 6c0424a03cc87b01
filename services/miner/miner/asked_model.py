"""A checkpoint that questions are put to, in a child process: how it is loaded is told as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.inference.dress import Dress, day_of
from ratchet.inference.generator import Decoding
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
        """One graded answer an item, in order. An item that stands there twice is sampled twice."""
        chats = [item.prompt for item in items]
        generations = self._generator.generate(chats, decoding or self._spec.decoding)
        return [
            Answered.of(
                item,
                item_key(item),
                generation.text,
                generation.token_logprobs,
                self._dress,
                finished=generation.finish_reason == "stop",
            )
            for item, generation in zip(items, generations, strict=True)
        ]

    def scored(self, answers: Sequence[Answered]) -> list[Answered]:
        """The same answers; the wrong ones have the loss of a right answer that can be scored and is not too long."""
        golds = {each.example.id: self._dress.example(each.example).answer for each in answers if not each.is_right}
        prompts = {each.example.id: each.example.prompt for each in answers}
        known = [(id, gold) for id, gold in golds.items() if gold and self._generator.fits(prompts[id], gold)]
        scores = self._generator.score([prompts[id] for id, _ in known], [gold for _, gold in known])
        losses = {id: -sum(score) / len(score) for (id, _), score in zip(known, scores, strict=True)}
        return [each.model_copy(update={"gold_nll": losses.get(each.example.id)}) for each in answers]
