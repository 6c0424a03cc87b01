"""Mining's and correction's work with a loaded checkpoint, in a child process: specs, results and the entry points.

Mining searches for weak answers and asks an earlier set again. Rejection sampling answers an item several times and
keeps an answer that the grader accepts: a model's own right solutions are good examples for it, since they are in its
own words (Yuan et al., arXiv:2308.01825, 2023). Specs and results travel as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.evaluation.suite import HoldOut
from ratchet.inference.generator import BatchGenerator, Decoding, Generation
from ratchet.inference.open_model import opened_model
from ratchet.inference.prompt_format import PromptFormat, day_of
from ratchet.settings import Settings
from ratchet.settings.serving import InferenceSettings
from ratchet.tasks.graders import item_key

from miner.mined_items import ROWS, GradedAnswer, MinedItem, categorise, hard_items, mined_item
from miner.search import search

Progress = Callable[[dict[str, Any]], None]


class ModelSpec(BaseModel):
    """A checkpoint's folder, the digest that its weights must have, and how it is asked.

    ``scratch`` is an existing folder for what the engine of ``inference`` writes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path
    weights: str
    scratch: Path
    decoding: Decoding
    inference: InferenceSettings = InferenceSettings()
    profile: str = "plain"
    profile_options: dict[str, Any] = Field(default_factory=dict)
    template_variables: dict[str, Any] = Field(default_factory=dict)
    system_prompt: str = ""
    day: str = ""

    @classmethod
    def configured(cls, settings: Settings, checkpoint: Path, weights: str, at: float, scratch: Path) -> Self:
        """With the decoding of testing; ``at`` is a time on the day that the system turn names."""
        return cls(
            checkpoint=checkpoint,
            weights=weights,
            scratch=scratch,
            decoding=Decoding(max_new_tokens=settings.suites.max_new_tokens),
            inference=settings.inference,
            profile=settings.profile.name,
            profile_options=settings.profile.options,
            template_variables=settings.profile.template_variables,
            system_prompt=settings.monitoring.system_prompt_base,
            day=day_of(at),
        )

    @property
    def prompt_format(self) -> PromptFormat:
        return PromptFormat.named(
            self.profile, self.profile_options, self.system_prompt, self.day, self.template_variables
        )


class AnsweringModel:
    """The loaded model, and how its answers are graded."""

    def __init__(self, spec: ModelSpec, generator: BatchGenerator):
        self._spec, self._generator = spec, generator
        self._prompt_format = spec.prompt_format

    @classmethod
    @contextmanager
    def opened(cls, spec: ModelSpec, progress: Progress) -> Iterator[Self]:
        """Loaded for the block. Raises BrokenCheckpoint for a damaged folder or another digest."""

        def beat() -> None:
            progress({"note": "answering"})

        with opened_model(
            spec.checkpoint, spec.inference, spec.weights, spec.prompt_format, spec.scratch, beat
        ) as generator:
            yield cls(spec, generator)

    def ask(self, items: Sequence[Example], decoding: Decoding | None = None) -> list[GradedAnswer]:
        """One graded answer an item, in order, the greedy ones with the loss of the right answer.

        An item that is given twice is sampled twice.
        """
        chosen = decoding or self._spec.decoding
        golds = [self._prompt_format.apply(item).answer for item in items] if chosen.temperature == 0 else None
        answered: dict[int, GradedAnswer] = {}
        for batch, generations in self._generator.batches([item.prompt for item in items], chosen, drafts=golds):
            answered.update(
                (index, self._graded(items[index], generation))
                for index, generation in zip(batch, generations, strict=True)
            )
        return [answered[index] for index in range(len(items))]

    def losses(self, items: Sequence[Example]) -> list[float | None]:
        """Mean negative log-probability of each item's own answer, in nats per token; None for one without a token."""
        chats, answers = (
            [item.prompt for item in items],
            [self._prompt_format.apply(item).answer or "" for item in items],
        )
        scores = self._generator.score(chats, answers)
        return [-sum(each) / len(each) if each else None for each in scores]

    def _graded(self, item: Example, generation: Generation) -> GradedAnswer:
        finished, scores = generation.finish_reason == "stop", generation.draft_logprobs
        key, text, logprobs = item_key(item), generation.text, generation.token_logprobs
        found = GradedAnswer.of(item, key, text, logprobs, self._prompt_format, finished=finished)
        return found.model_copy(update={"gold_nll": -sum(scores) / len(scores)}) if scores else found


class MiningSpec(BaseModel):
    """What is asked of a checkpoint. ``cells`` are searched from the ``answered`` probe items there, ``known`` keys
    are not asked again; ``retest`` are items of the set before, ``control`` as many random ones of the same levels.
    ``rows`` are training rows of users' tasks that are asked beside the search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    cells: tuple[tuple[str, int], ...] = ()
    answered: tuple[GradedAnswer, ...] = ()
    held_out: HoldOut
    known: frozenset[str] = frozenset()
    before: dict[str, tuple[int, int]] = Field(default_factory=dict)
    budget: int = 0
    seed: int = 0
    retest: tuple[Example, ...] = ()
    control: tuple[Example, ...] = ()
    rows: tuple[Example, ...] = ()


class MiningResult(BaseModel):
    """``found`` are the weak items of the search; ``yields`` are (weak, asked) by arm. ``retest`` and ``control`` say
    of every item, in order, whether it is answered right now. ``weak_rows`` are the weak training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: tuple[MinedItem, ...] = ()
    yields: dict[str, tuple[int, int]] = Field(default_factory=dict)
    retest: tuple[bool, ...] = ()
    control: tuple[bool, ...] = ()
    weak_rows: tuple[MinedItem, ...] = ()


class ExcludedKeys:
    """Container of the keys that the search may not ask: held out, or mined before."""

    def __init__(self, held_out: HoldOut, known: frozenset[str]):
        self._held_out = held_out
        self._known = known

    def __contains__(self, key: object) -> bool:
        return key in self._known or key in self._held_out


def mine_checkpoint(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Answer a MiningSpec with a MiningResult. The same spec gives the same result on a CPU in fp32."""
    order = MiningSpec.model_validate(spec)
    with AnsweringModel.opened(order.model, progress) as model:
        return _mined(order, model, progress).model_dump(mode="json")


def _mined(order: MiningSpec, model: AnsweringModel, progress: Progress) -> MiningResult:
    asked = 0

    def ask(items: list[Example]) -> list[GradedAnswer]:
        nonlocal asked
        answers = model.ask(items) if items else []
        asked += len(items)
        progress({"note": f"{asked} asked"})
        return answers

    state = search(
        order.cells,
        order.answered,
        ask,
        budget=order.budget,
        excluded=ExcludedKeys(order.held_out, order.known),
        seed=order.seed,
        before=order.before,
    )
    again = ask([*order.retest, *order.control])
    marks = tuple(answer.is_right for answer in again)
    is_graded = [row.metadata.get("metric", "accuracy") == "accuracy" for row in order.rows]
    graded = [row for row, is_it in zip(order.rows, is_graded, strict=True) if is_it]
    free = [row for row, is_it in zip(order.rows, is_graded, strict=True) if not is_it]
    return MiningResult(
        found=tuple(state.found),
        yields={name: (each.weak, each.asked) for name, each in state.yields.items() if each.asked},
        retest=marks[: len(order.retest)],
        control=marks[len(order.retest) :],
        weak_rows=(*weak_rows(ask(graded)), *(hard_items(free, model.losses(free)) if free else ())),
    )


def weak_rows(answers: Sequence[GradedAnswer]) -> list[MinedItem]:
    """The training rows among the answered ones that show a weakness."""
    found = ((answer, categorise(answer)) for answer in answers)
    return [mined_item(answer, category, found_by=ROWS) for answer, category in found if category is not None]


class SamplingSpec(BaseModel):
    """``samples`` answers to each item, as ``model.decoding`` says (with a temperature)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    items: tuple[Example, ...]
    samples: int


class SamplingResult(BaseModel):
    """``kept`` is for each item, in order, the right answer that came most often (the shortest of several such), None
    where no sample was right; ``verified`` of ``asked`` samples were right. ``right`` has every right
    sample of each item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept: tuple[str | None, ...]
    asked: int
    verified: int
    right: tuple[tuple[str, ...], ...] = ()


def sample_answers(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Answer a SamplingSpec with a SamplingResult."""
    order = SamplingSpec.model_validate(spec)
    prompt_format = order.model.prompt_format
    with AnsweringModel.opened(order.model, progress) as model:
        answers = model.ask([item for item in order.items for _ in range(order.samples)])
    progress({"note": f"{len(answers)} samples"})
    right = [prompt_format.parse(answer.answer) if answer.is_right else None for answer in answers]
    groups = [right[place : place + order.samples] for place in range(0, len(right), order.samples)]
    return SamplingResult(
        kept=tuple(map(best, groups)),
        asked=len(right),
        verified=sum(text is not None for text in right),
        right=tuple(tuple(text for text in group if text) for group in groups),
    ).model_dump(mode="json")


def best(answers: list[str | None]) -> str | None:
    """The right answer to keep of one item's samples."""
    counted = Counter(text for text in answers if text)
    return min(counted, key=lambda text: (-counted[text], len(text), text)) if counted else None
