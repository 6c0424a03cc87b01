"""Speed and memory of the data gate, all checks on: ``python -m benchmarks.data_gate.run [ROWS]``.

Each measurement is a process of its own, reading a JSONL file from disk as the system does. ``known`` mixes the
families and levels of the default run; ``text`` is word problems of about 60 words, no two alike; memory is measured
on ROWS and on a quarter of them.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from datagen.batch_generation import generate_batch
from miner.data_gate import DataGate, GatePolicy, TokenCounter
from ratchet.data.jsonl import read_examples
from ratchet.data.near_duplicates import NearDuplicates
from ratchet.evaluation.suite import hold_out
from ratchet.tasks import registry

NAMES = ("chain_sum", "reverse", "sort_digits")
CELLS = [(name, level) for name in NAMES for level in range(1, 7)]
HELD_OUT_TEXTS = 1_000
SMOKE = ("40",)
"""Arguments of its smallest size, with which a test runs it to its end."""
LEAST = 100
"""Rows: fewer say nothing about memory, so that no quarter of them is measured beside them."""
MEGABYTE = 1 << 20


def known(rows: int) -> Iterator[str]:
    held = hold_out({name: registry.get(name) for name in NAMES}, CELLS, seed=1)
    mix = [(name, level, 1.0) for name, level in CELLS]
    return (example.to_line() for example in generate_batch(mix, rows, 1, held, epoch_cap=3_000))


def text(rows: int) -> Iterator[str]:
    return (json.dumps({"question": _problem(n), "answer": str(n), "skill": "gsm8k"}) for n in range(rows))


def _problem(n: int) -> str:
    random = Random(n)
    words = [f"{random.choice('bcdfglmnprst')}{random.choice('aeiou')}{random.choice('dklmnrst')}" for _ in range(58)]
    return f"{' '.join(words)}. How many are {n}?"


def measure(kind: str, file: Path, model: Path) -> None:
    """Pass the file through the gate and print examples a second and the process's peak memory."""
    held = hold_out({name: registry.get(name) for name in NAMES}, CELLS, seed=1)
    near = NearDuplicates(_problem(10**9 + n) for n in range(HELD_OUT_TEXTS))
    policy = GatePolicy(max_tokens=1024, epoch_cap=3_000)
    gate = DataGate(policy, held, TokenCounter(model), near=near)
    started, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryFile("w") as accepted:
        for verdict in gate.examine(read_examples(file)):
            accepted.write(verdict.example.to_line() if verdict.example else "")
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report = gate.report
    print(
        f"| {kind} | {report.rows:,} | {file.stat().st_size / MEGABYTE:.0f} MB | {report.accepted:,} "
        f"| {report.rows / cpu_s:,.0f} | {report.rows / wall_s:,.0f} | {peak_mb:.0f} MB |",
        flush=True,
    )


def main(rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _save_tokenizer(folder)
        print("| rows | number | file | accepted | examples/s of CPU | examples/s of wall clock | peak memory |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for kind, lines in (("known", known), ("text", text)):
            for size in (rows // 4, rows) if rows >= LEAST else (rows,):
                file = folder / f"{kind}-{size}.jsonl"
                file.write_text("".join(f"{line}\n" for line in lines(size)))
                command = [sys.executable, __file__, kind, str(file), str(folder)]
                subprocess.run(command, check=True)


def _save_tokenizer(folder: Path) -> None:
    from ratchet.inference.tiny import build_tiny_tokenizer

    build_tiny_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000)
