"""Mining's work in a child process: load a checkpoint once, search for weak answers, ask the set before again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ratchet.data.example import Example
from ratchet.evaluation.suite import HoldOut

from miner.answered import Answered
from miner.asked_model import AskedModel, ModelSpec
from miner.mining import Limits, MinedItem
from miner.search import search

Progress = Callable[[dict[str, Any]], None]


class MiningSpec(BaseModel):
    """What is asked of a checkpoint. ``cells`` are searched from the ``answered`` probe items there, ``known`` keys
    are not asked again; ``retest`` are items of the set before, ``control`` as many random ones of the same levels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    cells: tuple[tuple[str, int], ...] = ()
    answered: tuple[Answered, ...] = ()
    held_out: HoldOut
    known: frozenset[str] = frozenset()
    before: dict[str, tuple[int, int]] = Field(default_factory=dict)
    budget: int = 0
    round_items: int = 48
    limits: Limits = Limits()
    seed: int = 0
    retest: tuple[Example, ...] = ()
    control: tuple[Example, ...] = ()


class MiningResult(BaseModel):
    """``found`` are the weak items of the search; ``yields`` are (weak, asked) by arm. ``retest`` and ``control`` say
    of every item, in order, whether it is answered right now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: tuple[MinedItem, ...] = ()
    yields: dict[str, tuple[int, int]] = Field(default_factory=dict)
    retest: tuple[bool, ...] = ()
    control: tuple[bool, ...] = ()


class Forbidden:
    """Keys that the search may not ask: held out, or mined before."""

    def __init__(self, held_out: HoldOut, known: frozenset[str]):
        self._held_out = held_out
        self._known = known

    def __contains__(self, key: object) -> bool:
        return key in self._known or key in self._held_out


def mine_checkpoint(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Answer a MiningSpec with a MiningResult. The same spec gives the same result on a CPU in fp32."""
    told = MiningSpec.model_validate(spec)
    model = AskedModel(told.model)
    asked = 0

    def ask(items: list[Example]) -> list[Answered]:
        nonlocal asked
        answers = model.ask(items) if items else []
        asked += len(items)
        progress({"note": f"{asked} asked"})
        return answers

    state = search(
        told.cells,
        told.answered,
        ask,
        budget=told.budget,
        round_items=told.round_items,
        forbidden=Forbidden(told.held_out, told.known),
        limits=told.limits,
        seed=told.seed,
        before=told.before,
    )
    again = ask([*told.retest, *told.control])
    marks = tuple(answer.is_right for answer in again)
    return MiningResult(
        found=tuple(state.found),
        yields={name: (each.weak, each.asked) for name, each in state.yields.items() if each.asked},
        retest=marks[: len(told.retest)],
        control=marks[len(told.retest) :],
    ).model_dump(mode="json")
