"""Training speed of the engine beside a bare loop and the stock Trainer: same rows, same order, same model, one run.

    python benchmarks/training/run.py                 # tiny model; writes RESULTS.md and results.json
    python benchmarks/training/run.py --rounds 1 --dry

Contenders take turns, round by round, on one thread, and the best round of each counts. The clock is the process's
CPU time, which is the wall time of an idle machine, so that a busy one does not blur the comparison. Tokens are inputs
without padding. Model loading, rendering and saving are outside the clock for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
from contenders import bare_loop, engine, lean_loop, stock_trainer
from ratchet.inference.tiny import build_tiny_model
from ratchet.testing.examples import sums, write_examples

HERE = Path(__file__).parent
SIZES: dict[str, dict[str, int]] = {
    "tiny": {},
    "25M": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "intermediate_size": 1536,
    },
}
CONTENDERS: dict[str, Callable[[Path, Path, int], tuple[int, float]]] = {
    "bare loop": bare_loop,
    "bare loop with the engine's batches": lean_loop,
    "Trainer": stock_trainer,
    "engine": engine,
}


@dataclass(frozen=True)
class Speed:
    """Best round of a contender."""

    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def measure(size: str, rows: int, batch_size: int, rounds: int) -> dict[str, Speed]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = build_tiny_model(folder / "model", **SIZES[size])
        data = write_examples(folder / "sums.jsonl", sums(rows, longest=6))
        best: dict[str, Speed] = {}
        for _ in range(rounds):
            for name, train in CONTENDERS.items():
                speed = Speed(*train(model, data, batch_size))
                if name not in best or speed.seconds < best[name].seconds:
                    best[name] = speed
        return best


def as_markdown(results: dict[str, dict[str, Speed]]) -> str:
    lines = [
        "# Training speed",
        "",
        f"`python benchmarks/training/run.py`, {time.strftime('%Y-%m-%d')}, {platform.machine()}, one thread, "
        f"torch {torch.__version__}, transformers {transformers.__version__}. Best round of each contender.",
        "",
    ]
    for size, speeds in results.items():
        fastest = max(speed.tokens_per_s for name, speed in speeds.items() if name in ("bare loop", "Trainer"))
        lines += [
            f"## {size}",
            "",
            "| contender | tokens/s | of the fastest of bare loop and Trainer |",
            "|---|---|---|",
        ]
        lines += [
            f"| {name} | {speed.tokens_per_s:,.0f} | {speed.tokens_per_s / fastest:.2f} |"
            for name, speed in speeds.items()
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["tiny"])
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {size: measure(size, options.rows, options.batch_size, options.rounds) for size in options.sizes}
    text = as_markdown(results)
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
