"""Does mining find what stays hard? ``python -m benchmarks.mining.run HOME…`` reads finished runs.

For every checkpoint of a run that has a level near its frontier, and the one trained after it:

- ``persistence``: the search is made several times over, as shipped (budget, rounds, size of a set), each time
  keeping off what it found before. The next checkpoint is asked the sets, and for every item a random problem of the
  same family and level. Off limits to all of them is what a pool holds and what the next checkpoint was trained on, so
  that neither correction examples nor a row met by chance decide. Beside the order that is shipped (``loss``)
  stands the one that it replaced (``sureness``: the surer a wrong answer, the weaker), on the same searches.
- ``margins``: of random problems the checkpoint answered right, those of low margin and the others, beside as many
  random ones of the same levels: how many of each the next checkpoint fails. It says what the category is worth.
- ``search``: the bandit beside as many random problems of the same levels; a question counts if its answer is weak by
  the categories of the docs.

``follow_up`` is what the runs themselves measured, correction examples included.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from miner.mined_items import UNSURE, GradedAnswer, MinedItem, categorise, chosen, control_items, frontier_cells
from miner.model_children import AnsweringModel, ModelSpec
from miner.search import Cell, Search, search
from miner.systems.mining import SET_ITEMS
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import held_out
from ratchet.evaluation.load_evaluation import load_evaluation, load_suite
from ratchet.evaluation.record import rates_from_json
from ratchet.ledger import Ledger
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BatchRow, CheckpointRow, MinedRow
from ratchet.settings import Settings
from ratchet.stats.proportions import newcombe
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import item_key
from sqlalchemy import select
from sqlalchemy.orm import Session

SMOKE = ("HOME", "--searches", "1", "--drawn", "20", "--budget", "48", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
ORDERS = ("loss", "sureness")


@dataclass(frozen=True)
class Pair:
    """A checkpoint with levels near its frontier, and the next one. ``answers`` are the probe record's there."""

    name: str
    settings: Settings
    cells: list[Cell]
    answers: list[GradedAnswer]
    specs: tuple[ModelSpec, ModelSpec]
    trained: frozenset[str]


class OffLimits:
    """Keys in any of these."""

    def __init__(self, *parts: Container[str]):
        self._parts = parts

    def __contains__(self, key: object) -> bool:
        return any(key in part for part in self._parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("homes", nargs="*", type=Path, default=[Path("run")])
    parser.add_argument("--searches", type=int, default=8, help="searches of every checkpoint")
    parser.add_argument("--drawn", type=int, default=1_500, help="random problems of a pair, for the margins")
    parser.add_argument("--budget", type=int, help="problems of a search; without it as mining is set")
    parser.add_argument("--dry", action="store_true", help="write no file")
    told = parser.parse_args()
    asked: list[dict[str, Any]] = []
    follow_ups: list[dict[str, Any]] = []
    for number, home in enumerate(told.homes, start=1):
        settings = Settings(home=home)
        if told.budget is not None:
            budget = settings.mining.model_copy(update={"search_items": told.budget})
            settings = settings.model_copy(update={"mining": budget})
        ledger, artifacts = Ledger(settings.ledger_url), ArtifactStore(settings.artifact_url)
        with ledger.read() as session:
            follow_ups += [row.numbers["follow_up"] for row in session.scalars(select(MinedRow)) if row.numbers]
            for pair in pairs(session, artifacts, settings, f"run {number}"):
                asked.append(compared(pair, told.searches, told.drawn))
                print(json.dumps(asked[-1]), flush=True)
        asked = [each for each in asked if each["search"]["asked"]]
        ledger.close()
    result = {
        "searches": told.searches,
        "persistence": {order: summed([each[order] for each in asked]) for order in ORDERS},
        "margins": summed([each["margins"] for each in asked]),
        "pairs": asked,
        "follow_up": followed([each for each in follow_ups if each]),
    }
    if not told.dry:
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result[name] for name in ("persistence", "margins", "follow_up")}, indent=1))


def pairs(session: Session, artifacts: ArtifactStore, settings: Settings, run: str) -> Iterator[Pair]:
    suite = current(session, "probe")
    items = load_suite(artifacts, suite).by_id
    saved = select(CheckpointRow).where(CheckpointRow.state == "saved")
    for one, other in pairwise(session.scalars(saved.order_by(CheckpointRow.ordinal))):
        record = evaluation(session, one.id, suite.id)
        if record is None or other.ordinal != one.ordinal + 1:
            continue
        cells = frontier_cells({cell: rate.value for cell, rate in rates_from_json(record.by_level).items()})
        if not cells:
            continue
        before, after = (
            ModelSpec.configured(
                settings, artifacts.fetch(c.artifact), c.weights, suite.created_at, settings.work_folder
            )
            for c in (one, other)
        )
        answers = [
            GradedAnswer.of_record(items[r.item_id], r, before.prompt_format)
            for r in load_evaluation(artifacts, record).items
        ]
        near = [answered for answered in answers if answered.cell in cells]
        trained = keys_of(session, artifacts, {one.batch_id, other.batch_id} - {None})
        yield Pair(f"{run}, #{one.ordinal} → #{other.ordinal}", settings, cells, near, (before, after), trained)


def keys_of(session: Session, artifacts: ArtifactStore, batches: set[str | None]) -> frozenset[str]:
    """Keys of all rows of these batches."""
    rows = [session.get_one(BatchRow, id).artifact for id in batches]
    lines = (line for artifact in rows if artifact for line in artifacts.open_lines(artifact))
    return frozenset(item_key(Example.model_validate_json(line)) for line in lines)


def compared(pair: Pair, searches: int, drawn_items: int) -> dict[str, Any]:
    """Failures at the next checkpoint of what was mined, by both orders, and of random problems."""
    with ExitStack() as stack:
        before, after = (stack.enter_context(AnsweringModel.opened(spec, lambda _message: None)) for spec in pair.specs)
        return _compared(pair, before, after, searches, drawn_items)


def _compared(
    pair: Pair, before: AnsweringModel, after: AnsweringModel, searches: int, drawn_items: int
) -> dict[str, Any]:
    held = held_out(pair.settings.suites)
    tallies: dict[str, defaultdict[str, Counter[str]]] = {order: defaultdict(Counter) for order in ORDERS}
    found = Counter[str]()
    seen: set[str] = set()
    for seed in range(searches):
        off = OffLimits(held, pair.trained, frozenset(seen))
        state, answers = searched(pair, before, off, seed)
        drawn = before.ask(drawn_by_turns(pair.cells, state.asked, off, seed))
        weak = sum(categorise(answered) is not None for answered in drawn)
        found.update(asked=state.asked, weak=len(state.found), drawn=len(drawn), drawn_weak=weak)
        for order in ORDERS:
            kept = chosen(rated(state.found, answers, order), SET_ITEMS)
            for category in sorted({item.category for item in kept}):
                like = [item for item in kept if item.category == category]
                ask_again(after, category, like, control_items(like, off, seed), tallies[order])
        seen |= {item.key for item in state.found}
    levels = [f"{family}/{level}" for family, level in pair.cells]
    failures = {order: {name: dict(counts) for name, counts in tallies[order].items()} for order in ORDERS}
    shaky = margins(before, after, drawn_by_turns(pair.cells, drawn_items, OffLimits(held, pair.trained), -1))
    return {"pair": pair.name, "levels": levels, "search": dict(found), "margins": shaky, **failures}


def margins(before: AnsweringModel, after: AnsweringModel, items: list[Example]) -> dict[str, dict[str, int]]:
    """Failures at the next checkpoint: of the items of one half that were right, by their margin; and for each of these
    one of the other half and the same level, whatever became of it."""
    answers = list(zip(before.ask(items), after.ask(items), strict=True))
    half = len(answers) // 2
    others: defaultdict[Cell, list[bool]] = defaultdict(list)
    for was, now in answers[half:]:
        others[was.cell].append(now.is_right)
    tally: defaultdict[str, Counter[str]] = defaultdict(Counter)
    used: defaultdict[str, Counter[Cell]] = defaultdict(Counter)
    for was, now in answers[:half]:
        kind = "low_margin" if was.least_probability < UNSURE else "sure"
        place = used[kind][was.cell]
        if was.is_right and place < len(others[was.cell]):
            used[kind][was.cell] += 1
            tally[f"{kind}, mined"].update(n=1, failed=not now.is_right)
            tally[f"{kind}, random"].update(n=1, failed=not others[was.cell][place])
    return {name: dict(counts) for name, counts in tally.items()}


def searched(
    pair: Pair, model: AnsweringModel, off: Container[str], seed: int
) -> tuple[Search, dict[str, GradedAnswer]]:
    """The search as mining makes it, and every answer of it by key."""
    answers: dict[str, GradedAnswer] = {}

    def ask(items: list[Example]) -> list[GradedAnswer]:
        asked = model.ask(items)
        answers.update((answer.key, answer) for answer in asked)
        return asked

    state = search(
        pair.cells,
        pair.answers,
        ask,
        budget=pair.settings.mining.search_items,
        excluded=off,
        seed=seed,
    )
    return state, answers


def rated(found: list[MinedItem], answers: dict[str, GradedAnswer], order: str) -> list[MinedItem]:
    """With the weakness that is shipped, or with how sure a wrong answer was in its place."""
    if order == "loss":
        return found
    return [
        item.model_copy(update={"weakness": 1.0 + answers[item.key].mean_probability}) if item.error else item
        for item in found
    ]


def drawn_by_turns(cells: list[Cell], count: int, off: Container[str], seed: int) -> list[Example]:
    """Random problems, the levels taking turns; a level that gives none in many tries is left out."""
    random, seen, left = Random(f"{seed} drawn"), set[str](), list(cells)
    examples: list[Example] = []
    while left and len(examples) < count:
        family, level = left[len(examples) % len(left)]
        tries = (registry.get(family).generate(level, random.getrandbits(48)) for _ in range(200))
        problem = next((each for each in tries if each.key not in off and each.key not in seen), None)
        if problem is None:
            left.remove((family, level))
            continue
        seen.add(problem.key)
        examples.append(to_example(problem, "random"))
    return examples


def ask_again(
    model: AnsweringModel, category: str, mined: list[MinedItem], random: list[Example], tally: dict[str, Counter[str]]
) -> None:
    """Add to the tally what the next checkpoint fails of a category, and of random problems of the same levels."""
    for items, kind in (([item.example for item in mined], "mined"), (random, "random")):
        failed = sum(not answered.is_right for answered in model.ask(items))
        for name in (kind, f"{category}, {kind}"):
            tally[name].update(n=len(items), failed=failed)


def summed(tallies: list[dict[str, dict[str, int]]]) -> dict[str, Any]:
    """All pairs added up, with the interval of the difference."""
    total: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for tally in tallies:
        for name, counts in tally.items():
            total[name].update(counts)
    against = {
        name: [round(100 * bound, 1) for bound in excess(counts, total[name.replace("mined", "random")])]
        for name, counts in total.items()
        if name.endswith("mined") and counts["n"] and total[name.replace("mined", "random")]["n"]
    }
    return {"counts": {name: dict(counts) for name, counts in total.items()}, "points_against_random": against}


def excess(mined: Counter[str], random: Counter[str]) -> tuple[float, float, float]:
    """The difference of the shares, and its bounds."""
    interval = newcombe(mined["failed"], mined["n"], random["failed"], random["n"])
    return mined["failed"] / mined["n"] - random["failed"] / random["n"], interval.low, interval.high


def followed(follow_ups: list[dict[str, Any]]) -> dict[str, Any]:
    """All follow-ups of the runs added up."""
    total: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in follow_ups:
        total["mined"].update(n=each["mined"], failed=each["mined_failed"])
        total["random"].update(n=each["random"], failed=each["random_failed"])
        for name, (failed, n) in each["by_category"].items():
            total[f"{name}, again"].update(n=n, failed=failed)
    return {"sets": len(follow_ups), **summed([{name: dict(counts) for name, counts in total.items()}])}


if __name__ == "__main__":
    main()
