"""Rejection sampling in a child process: the model answers a lesson several times, and its grader keeps what is right.

Yuan et al., arXiv:2308.01825 (2023): a model's own right solutions, found by sampling, are good examples for it, being
in its own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict
from ratchet.data.example import Example

from miner.asked_model import AskedModel, ModelSpec

Progress = Callable[[dict[str, Any]], None]


class SamplingSpec(BaseModel):
    """``samples`` answers to each item, as ``model.decoding`` says (with a temperature)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    items: tuple[Example, ...]
    samples: int


class SamplingResult(BaseModel):
    """``kept`` is for each item, in order, the right answer that came most often (the shortest of several such), None
    where no sample was right; ``verified`` of ``asked`` samples were right."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: tuple[str | None, ...]
    asked: int
    verified: int


def sample_answers(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Answer a SamplingSpec with a SamplingResult."""
    told = SamplingSpec.model_validate(spec)
    model = AskedModel(told.model)
    dress = told.model.dress
    answers = model.ask([item for item in told.items for _ in range(told.samples)])
    progress({"note": f"{len(answers)} samples"})
    right = [dress.answer(answer.answer) if answer.is_right else None for answer in answers]
    groups = [right[place : place + told.samples] for place in range(0, len(right), told.samples)]
    return SamplingResult(
        kept=tuple(map(best, groups)), asked=len(right), verified=sum(text is not None for text in right)
    ).model_dump(mode="json")


def best(answers: list[str | None]) -> str | None:
    """The right answer to keep of one item's samples."""
    counted = Counter(text for text in answers if text)
    return min(counted, key=lambda text: (-counted[text], len(text), text)) if counted else None
