"""The noise floor of judging, and whether a checkpoint is served as it was judged.

A small model is trained first, since a model with random weights has no answer that is likelier than another, so that
rounding would decide all of them. Judged is by testing's own code, served by the inference server's batcher, and
compared by the deployer's canary.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from deployer.canary import compare, reply
from ratchet.data.example import Example
from ratchet.evaluation.answer_suites import SuiteFile, TestingSpec, run_suites
from ratchet.evaluation.noise_floor import noise_floor
from ratchet.evaluation.record import Evaluation, ItemRecord, RecordKey
from ratchet.inference.generator import Decoding, Generation
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.tiny import build_tiny_model
from ratchet.lines import read_lines
from ratchet.serving.batcher import Batcher
from ratchet.serving.pending import PendingRequest
from ratchet.serving.protocol import Conditions
from ratchet.settings.serving import InferenceSettings, ServingSettings
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.watchdog import Watchdog
from trainer.config import parse_config

from benchmarks.gpu.card import device
from benchmarks.gpu.resume import trained
from tests.support.examples import made, write_examples

SMALL = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 1536,
}
"""Widths of the model that is judged on a card: 25 million parameters, which learn it in hundreds of steps."""
RATE = 5e-4
TINY_RATE = 3e-3
FAMILY, LEVELS = "sort_digits", (1, 2, 3, 4, 5, 6)
"""Digits to sort: short ones are learned within seconds, long ones in part, so that many answers are uncertain."""
DECODING = Decoding(max_new_tokens=32)
TIMEOUT_S = 60.0
MOST_SERVED = 64
"""Requests that are sent to the batcher at the same time."""


def measure_judging(
    steps: int, rows_per_step: int, items: int, batch_sizes: Sequence[int], dtypes: Sequence[str], small: bool
) -> dict[str, Any]:
    """Train a model for ``steps``, judge it in batches of each size and each dtype, and serve it.

    ``small`` takes the model of 25 million parameters in place of the tiny one.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        checkpoint = _checkpoint(folder, steps, rows_per_step, small)
        suite = [example for level in LEVELS for example in made(FAMILY, level, items // len(LEVELS), 1_000_000)]
        path = write_examples(folder / "suite.jsonl", suite)
        floors, served = [], []
        for dtype in dtypes:
            judged = [_judged(checkpoint, path, folder / f"{dtype}-{size}", dtype, size) for size in batch_sizes]
            floors.append(_floor(dtype, batch_sizes, judged))
            served.append({"dtype": dtype, **_served(checkpoint, suite, judged[0], dtype)})
        return {"steps": steps, "floors": floors, "served": served}


def _checkpoint(folder: Path, steps: int, rows_per_step: int, small: bool) -> Path:
    problems = [registry.get(FAMILY).generate(LEVELS[n % len(LEVELS)], n) for n in range(steps * rows_per_step)]
    data = write_examples(folder / "rows.jsonl", [to_example(problem, "benchmark") for problem in problems])
    output = folder / "run"
    result = trained(
        parse_config(
            {
                "model": {"path": str(build_tiny_model(folder / "base", **(SMALL if small else {})))},
                "hyperparams": {"batch_size": rows_per_step, "learning_rate": RATE if small else TINY_RATE},
                "monitoring": {"preview_backend": "none"},
                "data": {"dataset_path": data},
                "output": {"output_dir": output},
                "environment": {"device": device()},
            }
        )
    )
    return Path(str(result.last_checkpoint_path))


def _judged(checkpoint: Path, suite: Path, work: Path, dtype: str, batch_size: int) -> Evaluation:
    """Testing's records of the suite, in batches of this size."""
    spec = TestingSpec(
        checkpoint=checkpoint,
        suites=(SuiteFile(name="digits", version="1", grader="1", path=suite),),
        work_folder=work,
        decoding=DECODING,
        inference=InferenceSettings(dtype=dtype, batch_size=batch_size),
    )
    result = run_suites(spec.model_dump(mode="json"), lambda _progress: None)
    if result["broken"]:
        raise RuntimeError(result["broken"])
    found = result["suites"]["digits"]
    records = [ItemRecord.model_validate_json(line) for line in read_lines(Path(found["items"])) if line.strip()]
    key = RecordKey.model_validate(found["key"])
    return Evaluation(checkpoint_id=key.weights, key=key, items=tuple(records))


def _floor(dtype: str, batch_sizes: Sequence[int], judged: Sequence[Evaluation]) -> dict[str, Any]:
    """Of the pair of batch sizes with the most flips its noise floor, and how many items flipped in any pair."""
    floors = {
        f"{batch_sizes[i]} and {batch_sizes[k]}": noise_floor(judged[i], judged[k])
        for i, k in combinations(range(len(judged)), 2)
    }
    pair, worst = max(floors.items(), key=lambda entry: (entry[1].flips, entry[1].changed))
    grades = [{record.correct for record in records} for records in zip(*(one.items for one in judged), strict=True)]
    return {
        "dtype": dtype,
        "batch_sizes": list(batch_sizes),
        "items": worst.items,
        "right": sum(record.correct is True for record in judged[0].items),
        "pair": pair,
        "changed": worst.changed,
        "flips": worst.flips,
        "upper": worst.upper,
        "flipped_in_any": sum(len(each) > 1 for each in grades),
    }


def _served(checkpoint: Path, items: Sequence[Example], judged: Evaluation, dtype: str) -> dict[str, Any]:
    """The canary's numbers, for items that clients ask all at once while others are in flight."""
    settings = ServingSettings()
    generator = LocalGenerator.load(checkpoint, InferenceSettings(dtype=dtype), judged.key.weights)
    hardware = generator.hardware
    batcher = Batcher(
        judged.key.weights[:12],
        generator,
        max_batch=min(MOST_SERVED, len(items)),
        max_queue=len(items) + 1,
        limit_s=TIMEOUT_S,
        watchdog=Watchdog(),
    )
    try:
        asked = [PendingRequest(generator.prompt(item.prompt, DECODING), TIMEOUT_S) for item in items]
        for pending in asked:
            batcher.submit(pending)
        answers: list[Generation] = [pending.future.result(TIMEOUT_S) for pending in asked]
    finally:
        batcher.close(TIMEOUT_S)
    scores = generator.score([item.prompt for item in items], [reply(record) for record in judged.items])
    canary = compare(
        items,
        judged.items,
        answers,
        scores,
        settings,
        judged_under=judged.key,
        served_under=Conditions(engine=hardware.engine, dtype=hardware.dtype, gpu_class=hardware.gpu_class),
    )
    if torch.cuda.is_available():
        generator.close()
    return {"passed": canary.passed, "reason": canary.reason, **vars(canary.numbers)}
