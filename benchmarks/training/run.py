"""Training speed of the engine beside a bare loop, the stock Trainer and TRL's SFTTrainer, in one run.

    python -m benchmarks.training.run             # the tiny model; writes RESULTS.md and results.json
    python -m benchmarks.training.run --sizes tiny "tiny, shipped mix" 25M
    python -m benchmarks.training.run --sizes "135M, all weights" "135M, LoRA"
    python -m benchmarks.training.run --rounds 1 --dry

Same rows, same order, same model. The rows are sums of two to six terms; those of the shipped mix are of all families
and levels that the default settings teach, in equal parts; those of SmolLM2-135M-Instruct, a pretrained model that
comes from a package, are bAbI questions. Of it all weights are trained, or adapters of rank 16, by all contenders under
autocast to bf16 where the CPU computes in it. The others pad their rows, as they do by default on a CPU;
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
from ratchet.training_plan import cpu_computes_bf16

from benchmarks.training.contenders import HAS_TRL, Case, bare_loop, engine, lean_loop, sft_trainer, stock_trainer
from tests.support.examples import sums, write_examples
from tests.support.pretrained import pretrained_model

SMOKE = ("--rounds", "1", "--rows", "4", "--batch-size", "2", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
Result = dict[str, Any]
"""Of one size: ``setting``, how it was measured, and ``speeds`` by contender."""
BABI = HERE.parents[1] / "tests" / "data" / "babi_qa1_100.jsonl"
PRETRAINED = {"135M, all weights": 0, "135M, LoRA": 16}
"""Sizes of the pretrained model, by the rank of adapters."""
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
ROWS = {"tiny": 2000, "tiny, shipped mix": 2000, "25M": 48, **dict.fromkeys(PRETRAINED, 16)}
Train = Callable[[Case], tuple[int, float, float]]
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
        case = _case(size, rows, batch_size, Path(scratch))
        best: dict[str, Speed] = {}
        for _ in range(rounds):
            for name, train in CONTENDERS.items():
                speed = apart(train, case)
                if name not in best or speed.seconds < best[name].seconds:
                    best[name] = speed
        return best


def _case(size: str, rows: int, batch_size: int, folder: Path) -> Case:
    data = folder / "rows.jsonl"
    if size in PRETRAINED:
        lines = BABI.read_text(encoding="utf-8").splitlines(keepends=True)
        data.write_text("".join(lines[:rows]), encoding="utf-8")
        precision = "bf16" if cpu_computes_bf16() else "fp32"
        return Case(pretrained_model(), data, batch_size, PRETRAINED[size], precision)
    model = build_tiny_model(folder / "model", **SIZES[size])
    return Case(model, write_examples(data, shipped_mix(rows) if "mix" in size else sums(rows, longest=6)), batch_size)


def shipped_mix(count: int) -> list[Example]:
    cells = [(family.name, level) for family in SuiteSettings().families for level in family.levels]
    problems = [tasks.get(name).generate(level, n) for n in range(count) for name, level in [cells[n % len(cells)]]]
    return [to_example(problem, "benchmark") for problem in problems]


def apart(train: Train, case: Case) -> Speed:
    """One round in a process of its own, forked from this one, which has imported everything."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        tokens, seconds, first_step_s = train(case)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(writing, json.dumps([tokens, seconds, first_step_s, peak_mb]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = json.loads(answer.read())
    os.waitpid(child, 0)
    return Speed(*found)


def setting(command: str, load: float) -> str:
    """How a size was measured, in one paragraph."""
    return (
        f"`{command}`, {time.strftime('%Y-%m-%d')}, {platform.machine()}, one thread, torch {torch.__version__}, "
        f"transformers {transformers.__version__}. Best round of each contender. Load average at first: {load:.1f} on "
        f"{os.cpu_count()} cores" + (": other work ran beside it, so trust the ratios only." if load > 2 else ".")
    )


def as_markdown(results: dict[str, Result]) -> str:
    lines = ["# Training speed", ""]
    for size, result in results.items():
        speeds = result["speeds"]
        fastest = max(speed["tokens_per_s"] for name, speed in speeds.items() if name in RIVALS)
        known = ", ".join(name for name in RIVALS if name in speeds)
        lines += [
            f"## {size}",
            "",
            result["setting"],
            "",
            f"| contender | tokens/s | of the fastest of {known} | to the first step | memory |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {speed['tokens_per_s']:,.0f} | {speed['tokens_per_s'] / fastest:.2f} | "
            f"{speed['first_step_s'] * 1000:.0f} ms | {speed['peak_mb']:,.0f} MB |"
            for name, speed in speeds.items()
        ]
        lean, engine_ = speeds["bare loop with the engine's batches"], speeds["engine"]
        overhead = 1 - engine_["tokens_per_s"] / lean["tokens_per_s"]
        lines += ["", f"The Trainer around the engine's batches costs {overhead:.1%} of the time.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=[*SIZES, *PRETRAINED], default=["tiny"])
    parser.add_argument("--rows", type=int, help="rows to train on; without it 2000 for tiny, 48 for 25M, 16 for 135M")
    parser.add_argument("--batch-size", type=int, help="rows of a step; without it 32, for 135M 8")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    command = f"python -m benchmarks.training.run --sizes {shlex.join(options.sizes)} --rounds {options.rounds}"
    command += f" --batch-size {options.batch_size}" if options.batch_size else ""
    command += f" --rows {options.rows}" if options.rows else ""
    results: dict[str, Result] = {}
    for size in options.sizes:
        load = os.getloadavg()[0]
        batch_size = options.batch_size or (8 if size in PRETRAINED else 32)
        speeds = measure(size, options.rows or ROWS[size], batch_size, options.rounds)
        told = {name: vars(speed) | {"tokens_per_s": speed.tokens_per_s} for name, speed in speeds.items()}
        results[size] = {"setting": setting(command, load), "speeds": told}
    print(as_markdown(results))
    if not options.dry:
        _write(results)


def _write(results: dict[str, Result]) -> None:
    """Replace the results of these sizes, and keep those of others."""
    known: dict[str, Result] = json.loads(RESULTS.read_text(encoding="utf-8"))
    merged = {size: {**known, **results}[size] for size in [*SIZES, *PRETRAINED] if size in {**known, **results}}
    RESULTS.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
    (HERE / "RESULTS.md").write_text(as_markdown(merged), encoding="utf-8")


if __name__ == "__main__":
    main()
