"""Speed, memory and accuracy of the history of texts: ``python -m benchmarks.diversity.run [EXAMPLES] [--dry]``.

Word problems of about 60 words arrive in batches of 50,000; every tenth is an earlier one with one to three words
replaced (Jaccard 0.9, 0.82 or 0.74; the threshold is 0.8). One process, one thread; memory is the process's
anonymous memory and its total peak. At the end a
sample of new texts is compared by brute force, over all exact Jaccard indices, with a part of the history.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
from miner.text_history import opened
from ratchet.data.near_duplicates import word_runs

BATCH = 50_000
THRESHOLD = 0.8
SMOKE = ("2000", "--sample", "20", "--held", "200", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
WORDS = [f"{a}{b}{c}{d}" for a in "bcdfglmnprst" for b in "aeiou" for c in "dklmnrst" for d in ("", "e", "o")]


def problem(n: int) -> str:
    """Text n; of every ten the last is an earlier one, altered."""
    if n % 10 == 9:
        random = Random(-n)
        words = problem(random.randrange(n // 10 + 1) * 10).split()
        for place in random.sample(range(len(words) - 3), random.randint(1, 3)):
            words[place] = random.choice(WORDS)
        return " ".join(words)
    random = Random(n)
    return " ".join(random.choice(WORDS) for _ in range(58)) + f". How many are {random.randrange(100)}?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("examples", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=1_000, help="texts compared by brute force")
    parser.add_argument("--held", type=int, default=10_000, help="texts that they are compared with")
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    rows, examples = [], options.examples
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "history"
        for start in range(0, examples, BATCH):
            rows.append(measure(folder, start, min(BATCH, examples - start)))
            print(json.dumps(rows[-1]), flush=True)
        disk_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    result = {"batches": rows, "disk_mb": round(disk_mb), "brute_force": brute_force(options.sample, options.held)}
    print(json.dumps({key: value for key, value in result.items() if key != "batches"}, indent=1))
    if not options.dry:
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(folder: Path, start: int, size: int) -> dict[str, float]:
    """Add one batch; the time to make the texts is not counted."""
    texts = [(problem(n), True) for n in range(start, start + size)]
    began, cpu = time.perf_counter(), time.process_time()
    with opened(folder, 10**9) as history:
        found = history.add(str(start), iter(texts), THRESHOLD)
        held = history.examples
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
    return {
        "held": held,
        "known": found.known,
        "repeats": found.repeats,
        "texts_per_cpu_s": round(size / cpu_s),
        "texts_per_s": round(size / wall_s),
        "anonymous_mb": _anonymous_mb(),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def brute_force(sample: int, held_texts: int) -> dict[str, float]:
    """The search beside exact Jaccard indices: a sample of texts, half of them altered, against part of the history."""
    held = [problem(n) for n in range(0, 10 * held_texts, 10)]
    asked = [problem(n) for n in _altered(sample, held_texts)]
    runs = [set(word_runs(text)[0]) for text in held]
    figures = [word_runs(text)[1] for text in held]
    exact = np.array([_best(text, runs, figures) for text in asked])
    with tempfile.TemporaryDirectory() as name, opened(Path(name), 10**9) as history:
        history.add("held", ((text, True) for text in held), THRESHOLD)
        found = np.array([history.add(str(n), [(text, True)], THRESHOLD).known == 1 for n, text in enumerate(asked)])
    truth, surely, surely_not = exact >= THRESHOLD, exact >= THRESHOLD + 0.05, exact < THRESHOLD - 0.05
    return {
        "asked": len(asked),
        "held": len(held),
        "near_by_brute_force": int(truth.sum()),
        "near_by_search": int(found.sum()),
        "recall": round(float((found & truth).sum() / truth.sum()), 4),
        "precision": round(float((found & truth).sum() / found.sum()), 4),
        "recall_above_0.85": round(float(found[surely].mean()), 4),
        "found_below_0.75": round(float(found[surely_not].mean()), 4),
    }


def _altered(sample: int, held: int) -> Iterator[int]:
    """Half of the sample are altered texts whose originals are held, half are new."""
    yield from (10 * n + 9 for n in range(held - sample // 2, held))
    yield from (10 * held * 10 + 10 * n + 1 for n in range(sample // 2))


def _best(text: str, runs: list[set[str]], figures: list[tuple[str, ...]]) -> float:
    """The largest exact Jaccard index to a held text with the same numbers."""
    own, numbers = word_runs(text)
    mine = set(own)
    return max(
        (
            len(mine & theirs) / len(mine | theirs)
            for theirs, others in zip(runs, figures, strict=True)
            if others == numbers
        ),
        default=0.0,
    )


def _anonymous_mb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    main()
