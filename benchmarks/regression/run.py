"""False alarms and detection power of the regression monitor, beside the prior rule, a z-test and a naive paired test.

python -m benchmarks.regression.run              # 100 histories of 200 checkpoints; writes RESULTS.md, results.json
python -m benchmarks.regression.run --histories 10 --dry
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from evaluator.regression_verdict import judge_outcomes
from numpy.typing import NDArray
from ratchet.evaluation.paired_outcomes import CellOutcomes, OutcomeTable
from ratchet.evaluation.record import in_test_split
from ratchet.settings.judging import RegressionSettings
from ratchet.stats.paired_tests import mcnemar_better

SMOKE = ("--histories", "2", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
LEVELS, PER_LEVEL, CHECKPOINTS = 6, 50, 200
NAMES = [f"sum:{level}:{position}" for level in range(1, LEVELS + 1) for position in range(PER_LEVEL)]
TESTING = np.array([in_test_split(name) for name in NAMES])
PLANTED, SEEN = 100, 10
"""The checkpoint from which on a planted drop is there, and how many looks count for its detection."""

LEVEL = np.repeat(np.arange(1, LEVELS + 1), PER_LEVEL)

Grades = NDArray[np.bool_]
Alarms = NDArray[np.bool_]
Rule = Callable[[Grades, np.random.Generator], Alarms]


def equal_history(checkpoints: int, rng: np.random.Generator) -> Grades:
    """Grades of equal checkpoints, shape (checkpoints + 1, items), the champion first.

    An item is answered rightly with a chance of its own, the same for every checkpoint: half of the levels at 0.975
    (5 % of the items differ between two checkpoints), the other half at 0.854 or 0.146 (25 % differ).
    """
    hard = rng.choice([0.854, 0.146], size=len(NAMES))
    chance = np.where(LEVEL <= LEVELS // 2, 0.975, hard)
    return rng.random((checkpoints + 1, len(NAMES))) < chance


def worse_history(
    checkpoints: int, loss: float, only_level: int | None, gradual: bool, rng: np.random.Generator
) -> Grades:
    """Equal checkpoints up to ``PLANTED``; from then on every item, or every item of a level, is right less often.

    ``gradual``: the loss grows in equal steps up to the last checkpoint, else it is there at once.
    """
    hard = rng.choice([0.854, 0.146], size=len(NAMES))
    chance = np.where(LEVEL <= LEVELS // 2, 0.975, hard)
    hit = np.ones(len(NAMES), bool) if only_level is None else only_level == LEVEL
    age = np.arange(checkpoints + 1)
    share = np.clip((age - PLANTED + 1) / (checkpoints - PLANTED + 1), 0, 1) if gradual else (age >= PLANTED)
    lowered = np.clip(chance - loss * share[:, None] * hit, 0.0, 1.0)
    grades: Grades = rng.random((checkpoints + 1, len(NAMES))) < lowered
    return grades


def outcomes(before: Grades, after: Grades, only: Grades) -> OutcomeTable:
    """The paired outcomes of two rows of grades on some of the items."""
    return tuple(
        CellOutcomes(
            family="sum",
            level=level,
            n=int(cell.sum()),
            gains=int((after & ~before & cell).sum()),
            losses=int((before & ~after & cell).sum()),
        )
        for level in range(1, LEVELS + 1)
        for cell in [only & (level == LEVEL)]
    )


def best_before(grades: Grades, checkpoint: int, items: Grades) -> int:
    return int(grades[:checkpoint, items].mean(axis=1).argmax())


def monitor(grades: Grades, _: np.random.Generator, first: int = 1) -> Alarms:
    """Ours: champion and best so far, picked on one half and tested on the other. None is judged before ``first``."""
    settings = RegressionSettings()
    return np.array(
        [checkpoint >= first and _judge(grades, checkpoint, settings) for checkpoint in range(1, len(grades))]
    )


def _judge(grades: Grades, checkpoint: int, settings: RegressionSettings) -> bool:
    baselines = {0, best_before(grades, checkpoint, ~TESTING)}
    tables = {f"c{b}": outcomes(grades[b], grades[checkpoint], TESTING) for b in sorted(baselines)}
    return judge_outcomes(f"c{checkpoint}", tables, settings).severity != "none"


def best_on_all_items(grades: Grades, _: np.random.Generator) -> Alarms:
    """One paired test at 5 % against the best so far, picked and tested on the same items."""
    alarms = []
    for checkpoint in range(1, len(grades)):
        before, after = grades[best_before(grades, checkpoint, TESTING | True)], grades[checkpoint]
        alarms.append(mcnemar_better((before & ~after).sum(), (after & ~before).sum()) <= 0.05)
    return np.array(alarms)


def prior(grades: Grades, rng: np.random.Generator) -> Alarms:
    """The prior system's: 50 random items each, loss (twice the error rate) up by 15 % or accuracy down by 0.10."""
    accuracy = np.array([row[rng.choice(len(row), 50, replace=False)].mean() for row in grades])
    baseline, alarms = accuracy[0], []
    for rate in accuracy[1:]:
        alarm = (1 - rate) > 1.15 * (1 - baseline) or rate < baseline - 0.10
        alarms.append(alarm)
        baseline = baseline if alarm else rate
    return np.array(alarms)


def unpaired(grades: Grades, rng: np.random.Generator) -> Alarms:
    """One-sided z-test at 5 % against the best so far, each on a random half of the items, drawn once."""
    half = len(NAMES) // 2
    rates = np.array([row[rng.choice(len(row), half, replace=False)].mean() for row in grades])
    best = np.maximum.accumulate(rates)[:-1]
    pooled = (best + rates[1:]) / 2
    alarms: Alarms = (best - rates[1:]) / np.sqrt(2 * pooled * (1 - pooled) / half) > 1.6449
    return alarms


RULES: dict[str, Rule] = {
    "monitor": monitor,
    "paired, best so far, same items": best_on_all_items,
    "unpaired z, best so far": unpaired,
    "prior rule": prior,
}


def simulate(rule: Rule, histories: int, checkpoints: int, seed: int) -> Alarms:
    """Alarms, shape (histories, checkpoints)."""
    rng = np.random.default_rng(seed)
    return np.array([rule(equal_history(checkpoints, rng), rng) for _ in range(histories)])


@dataclass(frozen=True)
class Drop:
    """A planted drop. Detected at the first look, and by one of the last ``SEEN`` looks of the history."""

    name: str
    loss: float
    only_level: int | None = None
    gradual: bool = False
    checkpoints: int = PLANTED + SEEN - 1


DROPS = (
    Drop("one learnt level of six forgotten (97 to 30 %)", 0.675, only_level=1),
    Drop("10 points everywhere", 0.10),
    Drop("20 points everywhere", 0.20),
    Drop("slow decay, 0.2 points a checkpoint, 20 in all", 0.20, gradual=True, checkpoints=CHECKPOINTS),
)


def detection(histories: int, seed: int) -> list[dict[str, str | float]]:
    """For each rule and drop: share of histories with an alarm at the first look, and in the last looks."""
    table: list[dict[str, str | float]] = []
    for drop in DROPS:
        for name, rule in RULES.items():
            rng = np.random.default_rng(seed)
            first = last = 0
            for _ in range(histories):
                grades = worse_history(drop.checkpoints, drop.loss, drop.only_level, drop.gradual, rng)
                late = drop.checkpoints - SEEN + 1
                alarms = monitor(grades, rng, min(PLANTED, late)) if rule is monitor else rule(grades, rng)
                first += bool(alarms[PLANTED - 1])
                last += bool(alarms[-SEEN:].any())
            table.append({"drop": drop.name, "rule": name, "first": first / histories, "last": last / histories})
    return table


def rows(histories: int, seed: int) -> list[dict[str, str | float]]:
    table = []
    for name, rule in RULES.items():
        alarms = simulate(rule, histories, CHECKPOINTS, seed)
        spread = 1.96 * alarms.mean(axis=1).std(ddof=1) / np.sqrt(histories)
        row: dict[str, str | float] = {"rule": name, "all": float(alarms.mean()), "spread": float(spread)}
        for start, end in ((1, 10), (41, 60), (151, 200)):
            row[f"{start} to {end}"] = float(alarms[:, start - 1 : end].mean())
        table.append(row)
    return table


def to_markdown(table: list[dict[str, str | float]]) -> str:
    ages = [name for name in table[0] if " to " in name]
    lines = [
        "| rule | all | " + " | ".join(f"checkpoints {age}" for age in ages) + " |",
        "|---" * (2 + len(ages)) + "|",
    ]
    for row in table:
        cells = " | ".join(f"{row[age]:.1%}" for age in ages)
        lines.append(f"| {row['rule']} | {row['all']:.1%} ± {row['spread']:.1%} | {cells} |")
    return "\n".join(lines)


def detection_to_markdown(table: list[dict[str, str | float]]) -> str:
    names = list(RULES)
    lines = ["| planted drop | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for drop in DROPS:
        cells = {row["rule"]: row for row in table if row["drop"] == drop.name}
        shown = " | ".join(f"{cells[name]['first']:.0%}, {cells[name]['last']:.0%}" for name in names)
        lines.append(f"| {drop.name} | {shown} |")
    return "\n".join(lines)


INTRODUCTION = """# False alarms and detection power of the regression monitor

`python -m benchmarks.regression.run`, {date}: {histories} histories of 200 checkpoints, all equal to the champion,
seed {seed}; 300 eval items on six levels, 15 % of which differ between two checkpoints. The rate is alarms per
checkpoint (± is the 95 % half-width over histories); the nominal rate is 5 %, over all comparisons of one checkpoint
together.

"""

DETECTION = """
## Detection

The same world, with a drop planted at checkpoint 100: share of {histories} histories with an alarm at checkpoint 100
itself, and at one of the last ten checkpoints at least (200 in all for the slow decay, else 109). Read a rule's power
beside its false alarms above: one that cries at nine checkpoints of ten misses nothing, and says nothing.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    false_alarms, power = rows(arguments.histories, arguments.seed), detection(arguments.histories, arguments.seed)
    table, detected = to_markdown(false_alarms), detection_to_markdown(power)
    print(f"{table}\n\n{detected}")
    if not arguments.dry:
        date = datetime.now(UTC).date().isoformat()
        heading = INTRODUCTION.format(histories=arguments.histories, seed=arguments.seed, date=date)
        middle = DETECTION.format(histories=arguments.histories)
        (HERE / "RESULTS.md").write_text(f"{heading}{table}\n{middle}{detected}\n")
        results = {"false_alarms": false_alarms, "detection": power}
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
