"""Does mining find what stays hard? ``python benchmarks/mining/run.py HOME`` reads a finished run.

First, what the run itself measured: of the items mined from one checkpoint, how many the next one still fails, beside
random items of the same families and levels, over all checkpoints and by category. Second, the search beside chance:
every checkpoint that is still there is searched again with the same number of questions, once by the bandit and once
with random problems of the same levels; a question counts if its answer is weak by the categories of the docs.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from miner.answered import Answered
from miner.asked_model import AskedModel, ModelSpec
from miner.mining import Limits, categorise
from miner.search import search
from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example
from ratchet.evaluation.by_level import from_json
from ratchet.evaluation.standing import held_out
from ratchet.evaluation.stored import stored, stored_suite
from ratchet.ledger import Ledger
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import Checkpoint, Mined
from ratchet.settings import Settings
from ratchet.stats.newcombe import newcombe
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from sqlalchemy import select
from sqlalchemy.orm import Session

HERE = Path(__file__).parent


def main(home: Path) -> None:
    settings = Settings(home=home)
    ledger, artifacts = Ledger(settings.ledger_url), ArtifactStore(settings.artifact_url)
    with ledger.read() as session:
        result = {"follow_up": follow_ups(session), "search": searched(session, artifacts, settings)}
    ledger.close()
    print(json.dumps(result, indent=1))
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def follow_ups(session: Session) -> dict[str, Any]:
    """All follow-ups of the run added up."""
    told = [row.numbers["follow_up"] for row in session.scalars(select(Mined)) if row.numbers.get("follow_up")]
    total = Counter[str]()
    categories: dict[str, Counter[str]] = {}
    for each in told:
        total.update({name: each[name] for name in ("mined", "mined_failed", "random", "random_failed")})
        for name, (failed, n) in each["by_category"].items():
            categories.setdefault(name, Counter()).update({"failed": failed, "n": n})
    excess = newcombe(total["mined_failed"], total["mined"], total["random_failed"], total["random"])
    return {"sets": len(told), **total, "excess": [excess.low, excess.high], "by_category": categories}


def searched(session: Session, artifacts: ArtifactStore, settings: Settings) -> list[dict[str, Any]]:
    """Bandit and chance on every checkpoint that has a level near its frontier."""
    suite = current(session, "probe")
    items = stored_suite(artifacts, suite).by_id
    rows = []
    saved = select(Checkpoint).where(Checkpoint.state == "saved").order_by(Checkpoint.ordinal)
    for checkpoint in session.scalars(saved):
        record = evaluation(session, checkpoint.id, suite.id)
        if record is None:
            continue
        rates = from_json(record.by_level)
        low, high = settings.mining.frontier_low, settings.mining.frontier_high
        cells = [cell for cell, rate in rates.items() if low <= rate.value <= high]
        if cells:
            spec = ModelSpec.configured(
                settings, artifacts.fetch(checkpoint.artifact), checkpoint.weights, suite.created_at
            )
            answers = [Answered.of_record(items[r.item_id], r, spec.dress) for r in stored(artifacts, record).items]
            rows.append({"checkpoint": checkpoint.ordinal, **compare(spec, cells, answers, settings)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def compare(
    spec: ModelSpec, cells: list[tuple[str, int]], answers: list[Answered], settings: Settings
) -> dict[str, Any]:
    model, limits = AskedModel(spec), Limits(sure=settings.mining.sure, unsure=settings.mining.unsure)
    held, budget = held_out(settings.suites), settings.mining.search_items
    found = search(
        cells,
        [answered for answered in answers if answered.cell in cells],
        model.ask,
        budget=budget,
        round_items=settings.mining.round_items,
        forbidden=held,
        limits=limits,
        seed=1,
    )
    random = list(model.ask(drawn(cells, found.asked, held)))
    weak = sum(categorise(answered, limits) is not None for answered in random)
    return {"levels": len(cells), "asked": found.asked, "bandit_weak": len(found.found), "random_weak": weak}


def drawn(cells: list[tuple[str, int]], count: int, held: Any) -> list[Example]:
    """Random problems, the levels taking turns."""
    random, seen, examples = Random(2), set[str](), []
    while len(examples) < count:
        name, level = cells[len(examples) % len(cells)]
        problem = registry.get(name).generate(level, random.getrandbits(48))
        if problem.key not in held and problem.key not in seen:
            seen.add(problem.key)
            examples.append(to_example(problem, "random"))
    return examples


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("run"))
