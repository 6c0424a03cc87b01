"""Simulate the gate on tasks of a user: paired losses that are skewed or heavy-tailed, and few graded items.

python -m benchmarks.gate.scores            # writes SCORES.md and scores.json beside it
python -m benchmarks.gate.scores --runs 100 --dry
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from ratchet.evaluation.paired_outcomes import CellOutcomes, PairedScores
from ratchet.gate.decision import Promote, conclude, weigh
from ratchet.gate.screen import screen_outcomes
from ratchet.settings.judging import GateSettings
from ratchet.stats.paired_scores import BOUNDS, clipped, mean_above_p
from ratchet.stats.paired_tests import alpha_spent
from ratchet.stats.proportions import wilson

SMOKE = ("--runs", "1", "--draws", "10", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
BOUND = BOUNDS["loss"]
CHECKPOINTS, CHALLENGES = 50, 10
SETTINGS = GateSettings()
Floats = NDArray[np.float64]
Row = dict[str, str | float | int]


def normal(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    return 0.2 * rng.standard_normal(size)


def heavy(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    return 0.1 * rng.standard_t(3, size)


def skewed(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """Most items a little better, some much worse."""
    return -0.15 * np.exp(0.8 * rng.standard_normal(size))


def rare_harm(rng: np.random.Generator, size: tuple[int, ...]) -> Floats:
    """One item in fifty loses three nats."""
    return np.where(rng.random(size) < 0.02, -3.0, 0.03 * rng.standard_normal(size))


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Floats]] = {
    "normal, sd 0.2": normal,
    "t with 3 degrees": heavy,
    "lognormal, harm": skewed,
    "2 % of items −3 nats": rare_harm,
}


@dataclass(frozen=True)
class Differences:
    """A distribution of differences whose clipped mean is ``effect``, by its quantiles."""

    quantiles: Floats

    @classmethod
    def of(cls, shape: str, effect: float) -> Differences:
        drawn = np.sort(SHAPES[shape](np.random.default_rng(9), (200_001,)))
        shift = scipy.optimize.brentq(lambda by: clipped(drawn + by, BOUND).mean() - effect, -4, 4)
        return cls(drawn + shift)

    def draw(self, checkpoints: int, items: int, correlation: float, rng: np.random.Generator) -> Floats:
        """Successive checkpoints, whose differences on an item are alike."""
        trait = np.sqrt(correlation) * rng.standard_normal(items)
        z = trait + np.sqrt(1 - correlation) * rng.standard_normal((checkpoints, items))
        places = scipy.special.ndtr(z) * (len(self.quantiles) - 1)
        return np.asarray(self.quantiles[places.astype(np.int64)])


def task(differences: Floats, family: str = "notes") -> PairedScores:
    values = tuple(map(float, differences))
    return PairedScores(family=family, metric="loss", n=len(values), before=2.0, after=2.0, differences=values)


Table = tuple[CellOutcomes, ...]


def challenge(
    k: int,
    tasks: tuple[PairedScores, ...],
    table: Table = (),
    *,
    seen: tuple[PairedScores, ...] = (),
    seen_table: Table = (),
) -> bool:
    """Whether the gate promotes; ``seen`` are the outcomes on the eval suite."""
    names = frozenset([*(one.family for one in tasks), *(cell.family for cell in table)])
    told: dict[str, object] = {"champion": "old", "challenger": "new", "smoke_passed": True, "settings": SETTINGS}
    told |= {"screened_table": seen_table, "screened_scores": seen}
    return isinstance(conclude(weigh(table, k=k, mastered={}, scores=tasks, tasks=names, **told)), Promote)  # type: ignore[arg-type]


def promoted_at(
    target: Differences, sizes: tuple[int, int], correlation: float, rng: np.random.Generator
) -> int | None:
    """The challenge at which one of a champion's successors is promoted on a task measured by loss."""
    eval_items, confirm_items = sizes
    seen = target.draw(CHECKPOINTS, eval_items, correlation, rng)
    decided = target.draw(CHECKPOINTS, confirm_items, correlation, rng)
    p = mean_above_p(decided, 0.0, BOUND)
    k = 0
    for checkpoint in range(CHECKPOINTS):
        screened = (task(seen[checkpoint]),)
        if not screen_outcomes((), "old", "new", SETTINGS, screened).is_worth_opening:
            continue
        k += 1
        # Where the target is not proved the gate refuses, whatever else it says: only then it is spared the work.
        is_proved = p[checkpoint] <= alpha_spent(SETTINGS.alpha, k)
        if is_proved and challenge(k, (task(decided[checkpoint]),), seen=screened):
            return k
    return None


def graded_promoted_at(
    effect: float, flips: float, sizes: tuple[int, int], correlation: float, rng: np.random.Generator
) -> int | None:
    """As ``promoted_at``, of a task of graded items at 40 % success."""
    accuracy = 0.4
    lost, won = (flips - effect) / 2 / accuracy, (flips + effect) / 2 / (1 - accuracy)
    tables: list[list[tuple[CellOutcomes, ...]]] = []
    for n in sizes:
        right = rng.random(n) < accuracy
        trait = np.sqrt(correlation) * rng.standard_normal(n)
        z = trait + np.sqrt(1 - correlation) * rng.standard_normal((CHECKPOINTS, n))
        flipped = z < scipy.special.ndtri(np.where(right, lost, won))
        gains, losses = (flipped & ~right).sum(axis=1), (flipped & right).sum(axis=1)
        tables.append(
            [
                (CellOutcomes(family="sums", level=1, n=n, gains=int(g), losses=int(lost_)),)
                for g, lost_ in zip(gains, losses, strict=True)
            ]
        )
    k = 0
    for seen, decided in zip(*tables, strict=True):
        if screen_outcomes(seen, "old", "new", SETTINGS).is_worth_opening:
            k += 1
            if challenge(k, (), decided, seen_table=seen):
                return k
    return None


def harm_is_refused(harm: Differences, sizes: tuple[int, int], rng: np.random.Generator) -> bool:
    """A first challenger that is better by 0.3 nats on one task, and worse on another."""
    better, worse = Differences.of("normal, sd 0.2", 0.3), harm
    gained, lost = (each.draw(1, sizes[1], 0.0, rng)[0] for each in (better, worse))
    seen_gained, seen_lost = (each.draw(1, sizes[0], 0.0, rng)[0] for each in (better, worse))
    seen = (task(seen_gained), task(seen_lost, "letters"))
    return not challenge(1, (task(gained), task(lost, "letters")), seen=seen)


def measure(runs: int, seed: int) -> Iterator[Row]:
    """All rows about the gate."""
    small, middle = (5, 40), (32, 112)

    def row(claim: str, hits: int, reach: str) -> Row:
        interval = wilson(hits, runs)
        low, high = round(interval.low, 4), round(interval.high, 4)
        return {"claim": claim, "rate": hits / runs, "low": low, "high": high, "runs": runs, "reach": reach}

    for sizes in (small, middle):
        place = f"eval {sizes[0]}, confirm {sizes[1]}"
        for shape in SHAPES:
            equal = Differences.of(shape, 0.0)
            for correlation in (0.0, 0.5):
                rng = np.random.default_rng(seed)
                hits = sum(promoted_at(equal, sizes, correlation, rng) is not None for _ in range(runs))
                text = f"{place}: equal losses ({shape}; correlation {correlation}): any promotion"
                yield row(text, hits, "≤ 5 %")
        gain = 0.2 if sizes == small else 0.1
        rng = np.random.default_rng(seed + 1)
        better = Differences.of("normal, sd 0.2", gain)
        found = [promoted_at(better, sizes, 0.5, rng) for _ in range(runs)]
        hits = sum(k is not None and k <= CHALLENGES for k in found)
        yield row(f"{place}: loss lower by {gain} nats: promoted within {CHALLENGES} challenges", hits, "≥ 80 %")
        rng = np.random.default_rng(seed + 2)
        harm = Differences.of("normal, sd 0.2", -0.15)
        hits = sum(harm_is_refused(harm, sizes, rng) for _ in range(runs))
        yield row(f"{place}: loss of a second task higher by 0.15 nats: refused at the first challenge", hits, "≥ 80 %")
        for effect, reach in ((0.0, "≤ 5 %"), (0.3 if sizes == small else 0.2, "≥ 80 %")):
            rng = np.random.default_rng(seed + 3)
            found = [graded_promoted_at(effect, max(0.25, effect), sizes, 0.5, rng) for _ in range(runs)]
            hits = sum(k is not None and (not effect or k <= CHALLENGES) for k in found)
            told = f"+{100 * effect:.0f} points: within {CHALLENGES} challenges" if effect else "equal: any promotion"
            yield row(f"{place}: graded at 40 %, 25 % of items flip, {told}", hits, reach)


def sizes_of_tests(draws: int, seed: int) -> Iterator[Row]:
    """False rejections in multiples of alpha, of Gaffke's test, of t, and of the larger p of t and Johnson's t."""
    for shape in SHAPES:
        equal = Differences.of(shape, 0.0)
        for n in (20, 60, 200):
            rng = np.random.default_rng(seed)
            d = clipped(equal.draw(draws, n, 0.0, rng), BOUND)
            p = {"Gaffke": mean_above_p(d, 0.0, BOUND), "t": _t(d), "t and Johnson": np.maximum(_t(d), _johnson(d))}
            for alpha in (0.03, 0.003, 0.0003):
                shares = {name: round(float((values <= alpha).mean()) / alpha, 2) for name, values in p.items()}
                yield {"shape": shape, "n": n, "alpha": alpha, "draws": draws, **shares}


def _t(d: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(scipy.stats.t.sf(d.mean(1) / (d.std(1, ddof=1) / np.sqrt(d.shape[1])), d.shape[1] - 1))


def _johnson(d: Floats) -> Floats:
    """Johnson's modified t for skewed populations (Journal of the American Statistical Association 73:536, 1978)."""
    n, mean, spread = d.shape[1], d.mean(1), d.std(1, ddof=1)
    third = ((d - mean[:, None]) ** 3).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shifted = mean + third / (6 * spread**2 * n) + third * mean**2 / (3 * spread**4)
        return np.asarray(scipy.stats.t.sf(shifted / (spread / np.sqrt(n)), n - 1))


def to_markdown(rows: list[Row], tests: list[Row]) -> str:
    lines = ["| what | rate | 95 % | reach |", "|---|---|---|---|"]
    for row in rows:
        rate, low, high = (f"{float(row[name]):.1%}" for name in ("rate", "low", "high"))
        lines.append(f"| {row['claim']} | {rate} | {low} to {high} | {row['reach']} |")
    lines += [
        "",
        TESTS,
        "| differences | items | α | Gaffke | t | larger of t and Johnson's |",
        "|---|---|---|---|---|---|",
    ]
    for r in tests:
        lines.append(f"| {r['shape']} | {r['n']} | {r['alpha']} | {r['Gaffke']} | {r['t']} | {r['t and Johnson']} |")
    return "\n".join(lines)


TESTS = """How often equal models are called better, in multiples of α:
"""

INTRODUCTION = """# The gate on tasks of a user, simulated

`python -m benchmarks.gate.scores`, {day}, {runs} runs a row, seed {seed}, default gate settings. A run is one champion
and up to 50 later checkpoints; each is screened on the eval suite and challenges on the confirm suite if it passes.
Equal means that the mean of the differences, clipped at half a nat, is 0. `correlation` is how alike the differences of
successive checkpoints on one item are.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--draws", type=int, default=100_000, help="suites behind the error rates of the tests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    rows = list(measure(arguments.runs, arguments.seed))
    tests = list(sizes_of_tests(arguments.draws, arguments.seed))
    table = to_markdown(rows, tests)
    print(table)
    if not arguments.dry:
        values = {"settings": SETTINGS.model_dump(), "rows": rows, "tests": tests}
        (HERE / "scores.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
        intro = INTRODUCTION.format(day=date.today(), runs=arguments.runs, seed=arguments.seed)
        (HERE / "SCORES.md").write_text(f"{intro}{table}\n")


if __name__ == "__main__":
    main()
