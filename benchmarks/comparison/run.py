"""Time of a ranking: all at once, with one more checkpoint, and with a bootstrap that starts over each time.

python -m benchmarks.comparison.run              # 1,000 checkpoints by 1,000 items; writes RESULTS.md, results.json
python -m benchmarks.comparison.run --checkpoints 100 --dry
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from evaluator.ranking import Board, Tally, packed, rank, tally

from tests.support.records import evaluation

SMOKE = ("--checkpoints", "20", "--items", "50", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
FAMILIES = 4
ROUNDS = 5


def tallies(checkpoints: int, items: int) -> list[Tally]:
    """Checkpoints that get slowly better, on items of four families."""
    rng = np.random.default_rng(1)
    each = items // FAMILIES
    cells = {(f"family{i}", 1): [True] * each for i in range(FAMILIES)}
    like = tally(evaluation("like", cells))
    made = []
    for number in range(checkpoints):
        grades = rng.random(each * FAMILIES) < 0.3 + 0.5 * number / checkpoints
        parts = zip(like.by_family, np.split(grades, FAMILIES), strict=True)
        rates = {
            family: like.by_family[family].model_copy(
                update={"correct": int(part.sum()), "mean": float(part.mean()), "score": float(part.mean())}
            )
            for family, part in parts
        }
        scores = packed([float(grade) for grade in grades])
        made.append(like.model_copy(update={"checkpoint_id": f"c{number:05}", "scores": scores, "by_family": rates}))
    return made


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(checkpoints: int, items: int) -> dict[str, Any]:
    """Medians over five rounds, in seconds."""
    all_of_them = tallies(checkpoints, items)
    found: dict[str, list[float]] = {"all at once": [], "one more: its items": [], "one more: the ranking": []}
    for _ in range(ROUNDS):
        found["all at once"].append(seconds(lambda: rank(all_of_them)))
        board = Board()
        for one in all_of_them[:-1]:
            board.add(one)
        found["one more: its items"].append(seconds(partial(board.add, all_of_them[-1])))
        found["one more: the ranking"].append(seconds(board.rank))
    return {
        "checkpoints": checkpoints,
        "items": items,
        "seconds": {name: median(times) for name, times in found.items()},
        "groups": max(entry.group for entry in rank(all_of_them).entries),
    }


def to_markdown(results: list[dict[str, Any]]) -> str:
    names = list(results[0]["seconds"])
    lines = ["| checkpoints × items | " + " | ".join(names) + " | groups |", "|---" * (len(names) + 2) + "|"]
    for row in results:
        times = " | ".join(f"{1000 * row['seconds'][name]:.1f} ms" for name in names)
        lines.append(f"| {row['checkpoints']:,} × {row['items']:,} | {times} | {row['groups']} |")
    return "\n".join(lines)


INTRODUCTION = """# Time of a ranking

`python -m benchmarks.comparison.run`, {date}, one process on a shared two-core machine, medians of five rounds. Four
families, 400 resamples of the items. To reach: 1,000 × 1,000 in less than 2 s. A new checkpoint costs its own
items (second column, independent of the number of ranked ones) and a new order of all (third column).

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=1_000)
    parser.add_argument("--items", type=int, default=1_000)
    parser.add_argument("--dry", action="store_true", help="print only")
    arguments = parser.parse_args()
    sizes = [(max(arguments.checkpoints // 10, 2), arguments.items), (arguments.checkpoints, arguments.items)]
    results = [measure(*size) for size in sizes]
    print(to_markdown(results))
    if not arguments.dry:
        heading = INTRODUCTION.format(date=datetime.now(UTC).date().isoformat())
        (HERE / "RESULTS.md").write_text(f"{heading}{to_markdown(results)}\n")
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
