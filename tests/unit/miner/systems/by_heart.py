"""A model that answers by heart, and the homes that it is asked in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from miner.mined_items import GradedAnswer, MinedItem, read_mined
from miner.model_children import ExcludedKeys, MiningResult, MiningSpec, SamplingResult, SamplingSpec
from miner.search import search
from miner.systems.correction import SYSTEM as CORRECTION
from miner.systems.mining import SYSTEM as MINING
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import held_out
from ratchet.ledger.tables import BatchRow, MinedRow
from ratchet.tasks.graders import item_key

from tests.support.examples import made
from tests.support.home import Home

WATCHED = {"mining": {"search_items": 60}, "correction": {"samples": 2, "judged_share": 0.2}}


@dataclass
class ByHeart:
    """A fake model: it fails sums of three terms, and puts a word before every sampled answer."""

    orders: list[MiningSpec] = field(default_factory=list)
    sampled: list[SamplingSpec] = field(default_factory=list)

    def run(
        self, target: str, spec: dict[str, Any], *, on_progress: Callable[[dict[str, Any]], None], **_limits: Any
    ) -> dict[str, Any]:
        on_progress({"note": "by heart"})
        if target == "miner.model_children:sample_answers":
            return self._sample(SamplingSpec.model_validate(spec))
        assert target == "miner.model_children:mine_checkpoint"
        told = MiningSpec.model_validate(spec)
        self.orders.append(told)
        state = search(
            told.cells,
            told.answered,
            lambda items: [self._answer(item) for item in items],
            budget=told.budget,
            excluded=ExcludedKeys(told.held_out, told.known),
            seed=told.seed,
        )
        return MiningResult(
            found=tuple(state.found),
            yields={name: (each.weak, each.asked) for name, each in state.yields.items()},
            retest=tuple(self._answer(item).is_right for item in told.retest),
            control=tuple(self._answer(item).is_right for item in told.control),
        ).model_dump(mode="json")

    def _answer(self, item: Example) -> GradedAnswer:
        is_right = item.family == "reverse" or item.level == 1
        return GradedAnswer(
            example=item,
            key=item_key(item),
            answer="1+1=3",
            error=None if is_right else "operand",
            mean_probability=0.9,
            least_probability=0.9,
        )

    def _sample(self, told: SamplingSpec) -> dict[str, Any]:
        self.sampled.append(told)
        kept = tuple("wrong" if place % 2 else f" {item.metadata['gold']}" for place, item in enumerate(told.items))
        return SamplingResult(kept=kept, asked=2 * len(kept), verified=len(kept)).model_dump(mode="json")


def half_right(home: Home, offset: int = 0) -> str:
    """A checkpoint that gets every other probe item wrong."""
    checkpoint = home.add_checkpoint()
    wrong = {item.id for item in home.suite_items("probe")[offset::2]}
    home.add_record(checkpoint, "probe", lambda item: item.id not in wrong)
    return checkpoint


def mined_rows(home: Home, checkpoint: str) -> tuple[MinedRow, list[MinedItem]]:
    with home.ledger.read() as session:
        row = session.get_one(MinedRow, checkpoint)
    return row, read_mined(home.artifacts, str(row.artifact))


def corrected(home: Home, model: ByHeart, before: Collection[str] = ()) -> tuple[str, BatchRow, list[Example]]:
    """A checkpoint that was mined, and the correction batch made of it; ``before`` are earlier ones."""
    bus = home.bus(MINING, CORRECTION, children=model)
    home.add_batch([row for row in made("reverse", 2, 150) if item_key(row) not in held_out(home.settings.suites)])
    bus.sweep()
    checkpoint = half_right(home)
    bus.sweep()
    with home.ledger.read() as session:
        batch = session.query(BatchRow).where(BatchRow.origin == "correction", BatchRow.id.not_in(before)).one()
    rows = [Example.model_validate_json(line) for line in home.artifacts.open_lines(str(batch.artifact))]
    return checkpoint, batch, rows
