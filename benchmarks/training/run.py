"""Training speed of the engine beside a bare loop, the stock Trainer and TRL's SFTTrainer, in one run.

    python -m benchmarks.training.run             # the tiny model; writes RESULTS.md and results.json
    python -m benchmarks.training.run --sizes tiny "tiny, shipped mix" 25M
    python -m benchmarks.training.run --rounds 1 --dry

Same rows, same order, same model. The rows are sums of two to six terms; those of the shipped mix are of all families
and levels that the default settings teach, in equal parts. The others pad their rows, as they do by default on a CPU;
the engine lays them end to end. SFTTrainer takes part where `trl` is installed (no part of Ratchet: install it into
an environment of its own). Contenders take turns, round by round, each in a process of its own on one thread, and the
best round of each counts. The clock is the process's CPU time, which is the wall time of an idle machine, so that a
busy one blurs the comparison less. Tokens are inputs without padding. Model loading, rendering and saving are outside
the clock for all of them. Memory is the most that a process held, libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from ratchet.data.example import Example
from ratchet.inference.tiny import build_tiny_model
from ratchet.settings.judging import SuiteSettings
from ratchet.tasks import registry as tasks
from ratchet.tasks.family import to_example

from benchmarks.training.contenders import HAS_TRL, bare_loop, engine, lean_loop, sft_trainer, stock_trainer
from tests.support.examples import sums, write_examples

SMOKE = ("--rounds", "1", "--rows", "64", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
SIZES: dict[str, dict[str, int]] = {
    "tiny": {},
    "tiny, shipped mix": {},
    "25M": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "intermediate_size": 1536,
    },
}
ROWS = {"tiny": 2000, "tiny, shipped mix": 2000, "25M": 48}
Train = Callable[[Path, Path, int], tuple[int, float, float]]
CONTENDERS: dict[str, Train] = {
    "bare loop": bare_loop,
    "bare loop with the engine's batches": lean_loop,
    "Trainer": stock_trainer,
    **({"SFTTrainer": sft_trainer} if HAS_TRL else {}),
    "engine": engine,
}
RIVALS = ("bare loop", "Trainer", "SFTTrainer")


@dataclass(frozen=True)
class Speed:
    """A round of a contender. Seconds are of CPU time."""

    tokens: int
    seconds: float
    first_step_s: float
    peak_mb: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def measure(size: str, rows: int, batch_size: int, rounds: int) -> dict[str, Speed]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = build_tiny_model(folder / "model", **SIZES[size])
        examples = shipped_mix(rows) if "mix" in size else sums(rows, longest=6)
        data = write_examples(folder / "rows.jsonl", examples)
        best: dict[str, Speed] = {}
        for _ in range(rounds):
            for name, train in CONTENDERS.items():
                speed = apart(train, model, data, batch_size)
                if name not in best or speed.seconds < best[name].seconds:
                    best[name] = speed
        return best


def shipped_mix(count: int) -> list[Example]:
    cells = [(family.name, level) for family in SuiteSettings().families for level in family.levels]
    problems = [tasks.get(name).generate(level, n) for n in range(count) for name, level in [cells[n % len(cells)]]]
    return [to_example(problem, "benchmark") for problem in problems]


def apart(train: Train, model: Path, data: Path, batch_size: int) -> Speed:
    """One round in a process of its own, forked from this one, which has imported everything."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        tokens, seconds, first_step_s = train(model, data, batch_size)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(writing, json.dumps([tokens, seconds, first_step_s, peak_mb]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = json.loads(answer.read())
    os.waitpid(child, 0)
    return Speed(*found)


def as_markdown(results: dict[str, dict[str, Speed]], command: str, load: float) -> str:
    lines = [
        "# Training speed",
        "",
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {platform.machine()}, one thread, torch {torch.__version__}, "
        f"transformers {transformers.__version__}. Best round of each contender. Load average at first: {load:.1f} on "
        f"{os.cpu_count()} cores" + (": other work ran beside it, so trust the ratios only." if load > 2 else "."),
        "",
    ]
    for size, speeds in results.items():
        fastest = max(speed.tokens_per_s for name, speed in speeds.items() if name in RIVALS)
        known = ", ".join(name for name in RIVALS if name in speeds)
        lines += [
            f"## {size}",
            "",
            f"| contender | tokens/s | of the fastest of {known} | to the first step | memory |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {speed.tokens_per_s:,.0f} | {speed.tokens_per_s / fastest:.2f} | "
            f"{speed.first_step_s * 1000:.0f} ms | {speed.peak_mb:,.0f} MB |"
            for name, speed in speeds.items()
        ]
        lean, engine_ = speeds["bare loop with the engine's batches"], speeds["engine"]
        overhead = 1 - engine_.tokens_per_s / lean.tokens_per_s
        lines += ["", f"The Trainer around the engine's batches costs {overhead:.1%} of the time.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny"])
    parser.add_argument("--rows", type=int, help="rows to train on; without it 2000 for tiny, 48 for 25M")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    results = {
        size: measure(size, options.rows or ROWS[size], options.batch_size, options.rounds) for size in options.sizes
    }
    command = f"python -m benchmarks.training.run --sizes {shlex.join(options.sizes)} --rounds {options.rounds}"
    command += f" --rows {options.rows}" if options.rows else ""
    text = as_markdown(results, command, load)
    print(text)
    if not options.dry:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
        figures: dict[str, Any] = {
            size: {name: vars(speed) | {"tokens_per_s": speed.tokens_per_s} for name, speed in speeds.items()}
            for size, speeds in results.items()
        }
        (HERE / "results.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
