"""Simulate the gate with the shipped suite sizes, beside the prior system's rule and an unpaired z-test.

python -m benchmarks.gate.run            # 1,000 runs a scenario; writes RESULTS.md and results.json beside it
python -m benchmarks.gate.run --runs 100 --dry
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from ratchet.settings.judging import GateSettings
from ratchet.stats.proportions import wilson

from benchmarks.gate.rules import Outcome, gate, prior, unpaired
from benchmarks.gate.scenarios import SHIPPED, better, forgetting
from benchmarks.gate.world import World, live

CHECKPOINTS, CHALLENGES = 100, 10
SMOKE = ("--runs", "1", "--correlations", "0.5", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
Row = dict[str, str | float | int]


def run_gate(
    world: World, runs: int, correlation: float, seed: int, challenges: int, settings: GateSettings
) -> list[Outcome]:
    """Outcomes of independent champions."""
    rng = np.random.default_rng(seed)
    return [gate(live(world, CHECKPOINTS, correlation, rng), settings, challenges) for _ in range(runs)]


def run_rule(
    rule: Callable[[World, int, np.random.Generator], Outcome], world: World, runs: int, checkpoints: int, seed: int
) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    return [rule(world, checkpoints, rng) for _ in range(runs)]


def promoted(outcomes: list[Outcome], within: int | None = None) -> int:
    return sum(o.challenge is not None and (within is None or o.challenge <= within) for o in outcomes)


def measure(shape: World, runs: int, correlation: float, seed: int, settings: GateSettings) -> list[Row]:
    """All rows of one suite shape."""
    rows: list[Row] = []

    def add(claim: str, rule: str, hits: int, reach: str) -> None:
        interval = wilson(hits, runs)
        low, high = round(interval.low, 4), round(interval.high, 4)
        row: Row = {"suite": shape.name, "correlation": correlation, "claim": claim, "rule": rule}
        rows.append({**row, "rate": hits / runs, "low": low, "high": high, "runs": runs, "reach": reach})

    same = f"equal, {CHECKPOINTS} checkpoints: any promotion"
    add(same, "gate", promoted(run_gate(shape, runs, correlation, seed, CHECKPOINTS, settings)), "≤ 5 %")
    add(same, "prior rule", promoted(run_rule(prior, shape, runs, CHECKPOINTS, seed)), "")
    add(same, "unpaired z", promoted(run_rule(unpaired, shape, runs, CHECKPOINTS, seed)), "")
    gains = better(shape)
    won = run_gate(gains, runs, correlation, seed + 1, CHALLENGES, settings)
    text = f"{gains.effect:+.1%} with {gains.discordant_share:.0%} of items discordant"
    add(f"{text}: promoted at the first challenge", "gate", promoted(won, 1), "")
    add(f"{text}: promoted within {CHALLENGES} challenges", "gate", promoted(won), "≥ 80 %")
    loses = forgetting(shape)
    lost = run_gate(loses, runs, correlation, seed + 2, CHALLENGES, settings)
    text = f"{loses.effect:+.1%} over all, −5 in a protected family"
    add(f"{text}: refused at the first challenge", "gate", runs - promoted(lost, 1), "≥ 80 %")
    add(f"{text}: refused at each of {CHALLENGES} challenges", "gate", runs - promoted(lost), "")
    add(f"{text}: refused at first sight", "prior rule", runs - promoted(run_rule(prior, loses, runs, 1, seed)), "")
    add(f"{text}: refused at first sight", "unpaired z", runs - promoted(run_rule(unpaired, loses, runs, 1, seed)), "")
    return rows


def to_markdown(rows: list[Row]) -> str:
    lines = ["| suite | correlation | what | rule | rate | 95 % | reach |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        rate, low, high = (f"{float(row[name]):.1%}" for name in ("rate", "low", "high"))
        lines.append(
            f"| {row['suite']} | {row['correlation']} | {row['claim']} | {row['rule']} | {rate} "
            f"| {low} to {high} | {row['reach']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--correlations", type=float, nargs="*", default=[0.0, 0.5])
    parser.add_argument("--suites", default="", help="only suites whose name has this; the others' rows are kept")
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    settings = GateSettings()
    chosen = [shape for shape in SHIPPED if arguments.suites in shape.name]
    new = {
        shape.name: [
            row
            for correlation in arguments.correlations
            for row in measure(shape, arguments.runs, correlation, arguments.seed, settings)
        ]
        for shape in chosen
    }
    before = json.loads((HERE / "results.json").read_text())["rows"]
    kept = {shape.name: [row for row in before if row["suite"] == shape.name] for shape in SHIPPED}
    rows = [row for shape in SHIPPED for row in new.get(shape.name, kept[shape.name])]
    table = to_markdown(rows)
    print(table)
    if not arguments.dry:
        (HERE / "results.json").write_text(
            json.dumps({"settings": settings.model_dump(), "rows": rows}, indent=1, ensure_ascii=False) + "\n"
        )
        (HERE / "RESULTS.md").write_text(
            f"{INTRODUCTION.format(day=date.today(), runs=arguments.runs, seed=arguments.seed)}{table}\n"
        )


INTRODUCTION = """# The gate, simulated

`python -m benchmarks.gate.run`, {day}, {runs} runs a row, seed {seed}, default gate settings; eval suites of 300
where the name says nothing else. A run is one champion and up to 100 later checkpoints; each is screened on the eval
suite, and challenges on the confirm suite if it passes. Half of the levels are mastered (96 % right, 5 % of items
discordant), half are being learnt (50 % right, 25 % discordant): 15 % over all. `correlation` is how alike the luck of
successive checkpoints is. The prior rule takes the highest composite of loss, accuracy and speed on 50 random items;
the z-test compares separate samples of the confirm size.

"""

if __name__ == "__main__":
    main()
