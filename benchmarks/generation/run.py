"""Examples a second of data generation, beside the library's own speed, and its memory.

    python -m benchmarks.generation.run                # writes RESULTS.md and results.json
    python -m benchmarks.generation.run --rows 20000 --dry

Every measurement is a process of its own. ``ratchet`` makes a batch as the system does: drawn from a mix of the six
levels of arithmetic, nothing held out in it, repeats counted, and streamed to a published artifact with its checksums;
with no worker process, with one, with two. ``library`` asks reasoning-gym for as many items of the same kind and keeps
none. Besides the wall clock, which a busy machine stretches, the CPU time of all processes together is given, and what
follows from it for two idle cores: two children share their work, and the batch is put together after them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

SMOKE = ("--rows", "40", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
FAMILY, LEVELS = "chain_sum", (1, 2, 3, 4, 5, 6)
LEAST = 100
"""Examples: fewer say nothing about memory, so that no quarter of them is measured beside them."""
WANTED = 20_000
"""Examples a second on two cores."""


def library(rows: int) -> None:
    from reasoning_gym.factory import create_dataset

    items = create_dataset("chain_sum", seed=1, size=rows, min_terms=2, max_terms=7, min_digits=1, max_digits=1)
    for place in range(rows):
        items[place]


def ratchet(rows: int, workers: int) -> None:
    from datagen.batch_generation import BatchGeneration
    from datagen.generators.generator import GenerationContext
    from datagen.generators.tasks import Tasks
    from ratchet.artifacts import ArtifactStore
    from ratchet.evaluation.suite import hold_out
    from ratchet.processes.child_runner import ChildRunner
    from ratchet.tasks import registry

    held = hold_out({FAMILY: registry.get(FAMILY)}, [(FAMILY, level) for level in LEVELS], seed=1)
    mix = [(FAMILY, level, 1.0) for level in LEVELS]
    with tempfile.TemporaryDirectory() as name, ChildRunner() as children:
        folder = Path(name)

        def child(target: str, spec: Mapping[str, Any]) -> dict[str, Any]:
            return children.run(target, spec)

        workshop = GenerationContext(held, folder / "drafts", max(1, workers), child=child if workers else None)
        batch = BatchGeneration(Tasks(), workshop, mix, rows, seed=1, epoch_cap=10**9)
        ArtifactStore(f"file://{folder}/artifacts").publish_lines(batch.lines(), "batch", {})
        assert batch.report.examples == rows


CONTENDERS: dict[str, Callable[[int], None]] = {
    "library": library,
    "ratchet, in the worker itself": lambda rows: ratchet(rows, 0),
    "ratchet, one process": lambda rows: ratchet(rows, 1),
    "ratchet, two processes": lambda rows: ratchet(rows, 2),
}


def measure(name: str, rows: int) -> dict[str, Any]:
    """In this process: wall clock, CPU of this process and its children, and this process's peak memory."""
    started = time.perf_counter()
    CONTENDERS[name](rows)
    wall_s = time.perf_counter() - started
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "name": name,
        "rows": rows,
        "wall_s": wall_s,
        "own_cpu_s": own.ru_utime + own.ru_stime,
        "children_cpu_s": others.ru_utime + others.ru_stime,
        "peak_mb": own.ru_maxrss / 1024,
    }


def in_a_process(name: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", name, "--rows", str(rows)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def as_markdown(results: list[dict[str, Any]], load: float) -> str:
    lines = [
        "# Data generation",
        "",
        f"`python -m benchmarks.generation.run --rows {results[-1]['rows']}`, {time.strftime('%Y-%m-%d')}, "
        f"{os.cpu_count()} cores, one-minute load before the run {load:.1f}; imports are inside the clock.",
        "",
        "| who | examples | examples/s, wall clock | examples/s of CPU | worked out for two idle cores | peak memory |",
        "|---|---|---|---|---|---|",
        *(_row(result) for result in results),
        "",
        f"Wanted: {WANTED:,} a second on two cores, or the library's own speed, whichever is lower; and memory that "
        "does not follow the number of examples.",
        "",
        _judged(results),
        "",
    ]
    return "\n".join(lines)


def _judged(results: list[dict[str, Any]]) -> str:
    """Whether two processes reached what is wanted, by the wall clock, which alone counts."""
    library, ours = (
        max(result["rows"] / result["wall_s"] for result in results if result["name"] == name)
        for name in ("library", "ratchet, two processes")
    )
    wanted = min(float(WANTED), library)
    said = "reached" if ours >= wanted else "not reached"
    return (
        f"By the wall clock two processes made {ours:,.0f} a second where {wanted:,.0f} were wanted: {said}. "
        "Under a load above the number of cores a wall clock measures the load: see what is worked out from CPU time."
    )


def _row(result: dict[str, Any]) -> str:
    rows = result["rows"]
    speeds = (rows / result["wall_s"], _of_cpu(result), _of_two_cores(result))
    told = " | ".join(f"{speed:,.0f}" for speed in speeds)
    return f"| {result['name']} | {rows:,} | {told} | {result['peak_mb']:.0f} MB |"


def _of_cpu(result: dict[str, Any]) -> float:
    return float(result["rows"] / (result["own_cpu_s"] + result["children_cpu_s"]))


def _of_two_cores(result: dict[str, Any]) -> float:
    """The parent's work and the children's come one after the other; two children do theirs side by side."""
    cores = 2 if "two" in result["name"] else 1
    return float(result["rows"] / (result["own_cpu_s"] + result["children_cpu_s"] / cores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--measure", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.rows)))
        return
    load = os.getloadavg()[0]
    sizes = (options.rows // 4, options.rows) if options.rows >= LEAST else (options.rows,)
    results = [in_a_process(name, rows) for name in CONTENDERS for rows in sizes]
    text = as_markdown(results, load)
    print(text)
    if not options.dry:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
        (HERE / "results.json").write_text(json.dumps({"load": load, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
