"""Padding, and what it costs in learning, of ways to put rows of mixed lengths into steps of 32 rows.

    python -m benchmarks.training.padding             # writes PADDING.md

Rows are sums of two to twelve terms and words to turn round, half each, so that kinds differ in length. Every way
trains the tiny model on the same rows for one epoch, with several seeds; the loss is that on 400 other rows afterwards.
Rows of one step that are cut into several micro-batches by length give the same gradient as in one, and so do packed
rows: these ways cannot cost learning.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from ratchet.data.example import Example
from ratchet.profiles.profile import get_profile
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from torch.nn.functional import cross_entropy
from trainer.batches import collate
from trainer.config import create_default_config
from trainer.core import TrainerEngine
from trainer.dataset import examples_of, prepare_rows
from trainer.monitoring import TrainingStatusWriter
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.examples import sums, write_examples

SMOKE = ("--rows", "32", "--seeds", "1", "--dry")
"""Arguments of its smallest size, with which a test runs it to its end."""
HERE = Path(__file__).parent
OTHER_ROWS = 400


@dataclass(frozen=True)
class Way:
    batch_size: int
    accumulation: int
    attention: str = "sdpa"

    @property
    def layout(self) -> str:
        return "packed" if self.attention == "auto" else "padded"


WAYS = (
    Way(32, 1, "auto"),
    Way(32, 1),
    Way(16, 2),
    Way(8, 4),
    Way(4, 8),
)


def rows_of(count: int, seed: int) -> list[Example]:
    family = registry.get("reverse")
    words = [to_example(family.generate(1 + n % 3, 1_000_000 * seed + n), "benchmark") for n in range(count // 2)]
    return [*sums(count // 2, longest=12, seed=seed), *words]


def trained(way: Way, data: Path, folder: Path, seed: int) -> tuple[float, float, Path]:
    """Share of padding, tokens (without padding) a second of CPU time, and the checkpoint."""
    overrides = {
        "hyperparams.batch_size": way.batch_size,
        "hyperparams.gradient_accumulation": way.accumulation,
        "model.attention": way.attention,
        "monitoring.preview_backend": "none",
        "data.seed": seed,
    }
    config = create_default_config(data, folder / f"{way}-{seed}", overrides=overrides)
    begun_s = time.process_time()
    result = TrainerEngine(TrainingStatusWriter(folder / "status.json")).run_job(config)
    took_s = time.process_time() - begun_s
    assert result.success, result.error_message
    tokens = result.summary["tokens"] / took_s
    return result.summary["padding_share"], tokens, Path(str(result.last_checkpoint_path))


@torch.no_grad()
def loss_on(checkpoint: Path, data: Path) -> float:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    rows = prepare_rows(examples_of(data), get_profile("plain"), tokenizer, system_prompt="", max_length=1024)
    batch = collate(rows.rows, 0)
    logits = model(input_ids=batch.inputs, use_cache=False, logits_to_keep=batch.logits_to_keep).logits
    return float(cross_entropy(logits.flatten(0, 1)[batch.target_positions].float(), batch.targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    others = min(OTHER_ROWS, options.rows)
    lines = [
        "# Padding and learning",
        "",
        f"`python -m benchmarks.training.padding --rows {options.rows} --seeds {options.seeds}`, "
        f"{time.strftime('%Y-%m-%d')}, one thread. Steps of 32 rows of two kinds; mean loss on {others} other rows "
        "after one epoch. Tokens without padding, a second of CPU time, loading and saving included, best seed.",
        "",
        "| rows | micro-batch × accumulation | padding | tokens/s | loss | least and most |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = write_examples(folder / "rows.jsonl", rows_of(options.rows, 1))
        other = write_examples(folder / "other.jsonl", rows_of(others, 2))
        for way in WAYS:
            found = [trained(way, data, folder, seed) for seed in range(options.seeds)]
            losses = [loss_on(checkpoint, other) for *_, checkpoint in found]
            lines.append(
                f"| {way.layout} | {way.batch_size} × {way.accumulation} | "
                f"{mean(share for share, *_ in found):.1%} | {max(speed for _, speed, _ in found):,.0f} | "
                f"{mean(losses):.3f} | {min(losses):.3f} – {max(losses):.3f} |"
            )
    print("\n".join(lines))
    if not options.dry:
        (HERE / "PADDING.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
