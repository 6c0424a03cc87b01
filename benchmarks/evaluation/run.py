"""Evaluation speed of testing's generator beside lm-evaluation-harness's HF backend: same model, same items, one run.

    python benchmarks/evaluation/run.py            # writes RESULTS.md and results.json
    python benchmarks/evaluation/run.py --items 200 --dry

Needs `lm-eval` beside Ratchet's packages (no part of Ratchet: install it into an environment of its own). The tiny model
learns sums for a moment, so that its answers end. Then both answer the same dressed prompts greedily, in this process, on
one thread, with the model loaded before the clock starts. Each is tried at several batch sizes, and its best one
counts. Of the harness only `generate_until` is timed, without its making of requests and its metrics; ours also keeps the
log-probability of every token, and grades. The clock is CPU time, which is the wall time of an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import lm_eval
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from ratchet.data.example import Example
from ratchet.inference.chat import render_prompt
from ratchet.inference.generator import Decoding
from ratchet.inference.local import LocalGenerator
from ratchet.settings.inference import InferenceSettings
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import grade_example
from ratchet.testing.examples import write_examples
from trainer.config import create_default_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from transformers import AutoTokenizer

HERE = Path(__file__).parent
BATCH_SIZES = (64, 128, 256, 512)
NEW_TOKENS = 48
Answers = list[str]
Run = Callable[[], Answers]


def trained_model(folder: Path) -> Path:
    family = registry.get("chain_sum")
    rows = [to_example(family.generate(1 + n % 3, n), "benchmark") for n in range(4000)]
    overrides = {"monitoring.preview_backend": "none", "hyperparams.num_epochs": 4}
    config = create_default_config(write_examples(folder / "rows.jsonl", rows), folder / "run", overrides=overrides)
    result = TrainerEngine(TrainingStatusWriter(folder / "status.json")).run_job(config)
    assert result.success, result.error_message
    return Path(str(result.last_checkpoint_path))


def ours(model: Path, items: list[Example], batch_size: int) -> Run:
    generator = LocalGenerator.load(model, InferenceSettings(device="cpu", batch_size=batch_size))

    def run() -> Answers:
        generations = generator.generate([item.prompt for item in items], Decoding(max_new_tokens=NEW_TOKENS))
        for item, generation in zip(items, generations, strict=True):
            grade_example(item, generation.text)
        return [generation.text for generation in generations]

    return run


def harness(model: Path, items: list[Example], batch_size: int) -> Run:
    tokenizer = AutoTokenizer.from_pretrained(model)
    lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=batch_size, max_length=1024)
    until = {"until": ["<|im_end|>"], "max_gen_toks": NEW_TOKENS, "do_sample": False}
    prompts = [render_prompt(tokenizer, item.prompt) for item in items]

    def run() -> Answers:
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(until)), idx=0)
            for prompt in prompts
        ]
        return [str(answer) for answer in lm.generate_until(requests, disable_tqdm=True)]

    return run


def best(make: Callable[[Path, list[Example], int], Run], model: Path, items: list[Example], rounds: int) -> dict:
    """Items a second at the best batch size, and what was answered there."""
    found: dict = {"items_per_s": 0.0, "by_batch_size": {}}
    for batch_size in BATCH_SIZES:
        run = make(model, items, batch_size)
        run()
        for _ in range(rounds):
            begun_at = time.process_time()
            answers = run()
            speed = len(items) / (time.process_time() - begun_at)
            found["by_batch_size"][batch_size] = max(speed, found["by_batch_size"].get(batch_size, 0.0))
            if speed > found["items_per_s"]:
                found |= {"items_per_s": speed, "batch_size": batch_size, "answers": answers}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    family = registry.get("chain_sum")
    items = [to_example(family.generate(1 + n % 4, 10_000 + n), "benchmark") for n in range(options.items)]
    with tempfile.TemporaryDirectory() as scratch:
        model = trained_model(Path(scratch))
        mine, theirs = best(ours, model, items, options.rounds), best(harness, model, items, options.rounds)
    pairs = list(zip(mine.pop("answers"), theirs.pop("answers"), strict=True))
    same = sum(a.strip() == b.strip() for a, b in pairs)
    right = [
        sum(grade_example(item, pair[side]).correct for item, pair in zip(items, pairs, strict=True)) for side in (0, 1)
    ]
    text = f"""# Evaluation speed

`python benchmarks/evaluation/run.py --items {options.items} --rounds {options.rounds}`, {time.strftime("%Y-%m-%d")}, \
{platform.machine()}, one thread, torch {torch.__version__}, transformers {transformers.__version__}, lm-eval \
{lm_eval.__version__}. Best of {options.rounds} warm rounds at the best of the batch sizes {", ".join(map(str, BATCH_SIZES))}; model load excluded; CPU time. \
Load average at the start: {load:.1f} on {os.cpu_count()} cores{": other work ran beside it, so trust the ratio only." if load > 1 else "."}

| who | items/s | best batch size | right |
|---|---|---|---|
| testing's generator, with log-probabilities and grading | {mine["items_per_s"]:,.0f} | {mine["batch_size"]} | {right[0]} of {len(items)} |
| lm-evaluation-harness, `generate_until` alone | {theirs["items_per_s"]:,.0f} | {theirs["batch_size"]} | {right[1]} of {len(items)} |

Ratio: {mine["items_per_s"] / theirs["items_per_s"]:.1f}. The same answer in {same} of {len(items)} items.
"""
    print(text)
    if not options.dry:
        (HERE / "RESULTS.md").write_text(text, encoding="utf-8")
        figures = {"ours": mine, "harness": theirs, "ratio": mine["items_per_s"] / theirs["items_per_s"], "same": same}
        (HERE / "results.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
