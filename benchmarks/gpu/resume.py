"""Whether a run that was interrupted ends with the very bits of one that was not.

Two uninterrupted runs are compared first: where they differ, kernels add in an order of chance, and no resumption could
be exact. Compared are all trained weights in fp32 and both moments of AdamW, so nothing is rounded away.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from ratchet.settings.training import TrainerConfig
from safetensors.torch import load_file
from trainer.config import parse_config
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from trainer.segment import TrainingResult

from benchmarks.gpu.card import device
from benchmarks.gpu.shapes import SHAPES, random_rows, write_random_model
from tests.support.examples import write_examples

RATE = 1e-4


def measure_resume(
    model: str,
    lora_rank: int = 0,
    load_in_4bit: bool = False,
    deterministic: bool = False,
    steps: int = 8,
    batch_size: int = 4,
    max_length: int = 512,
) -> dict[str, Any]:
    """Train ``steps`` steps twice, and a third time with an interruption in the middle; compare the results.

    ``deterministic`` sets torch.use_deterministic_algorithms for all of them.
    """
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True, warn_only=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        base = write_random_model(folder / "model", SHAPES[model], device())
        data = write_examples(folder / "rows.jsonl", random_rows(steps * batch_size, max_length))

        def run(name: str, begin: Path | None = None, save_steps: int | None = None) -> tuple[Path, TrainingResult]:
            output = folder / name
            path = base if begin is None or lora_rank else begin / "final_model"
            config = parse_config(
                {
                    "model": {"path": str(path), "lora_rank": lora_rank, "load_in_4bit": load_in_4bit},
                    "hyperparams": {
                        "batch_size": batch_size,
                        "learning_rate": RATE,
                        "max_length": max_length,
                        "save_steps": save_steps,
                    },
                    "monitoring": {"preview_backend": "none", "logging_steps": 1},
                    "data": {"dataset_path": data},
                    "output": {"output_dir": output, "resume_from": None if begin is None else begin / "state"},
                    "environment": {"device": device()},
                }
            )
            return output, trained(config)

        whole, first = run("whole")
        again, second = run("again")
        half, begun = run("half", save_steps=steps // 2)
        rest, ended = run("rest", begin=half)
        return {
            "steps": steps,
            "precision": first.summary["precision"],
            "attention": first.summary["attention"],
            "again": differences(whole, again) | {"first_step": _first(first, second)},
            "resumed": differences(whole, rest) | {"first_step": _first(first, begun, ended)},
        }


def trained(config: TrainerConfig) -> TrainingResult:
    """The result of one run of the engine. Raises RuntimeError if it failed."""
    result = TrainerEngine(TrainingStatusWriter(config.output.output_dir / "status.json")).run_job(config)
    if not result.success:
        raise RuntimeError((result.error_message or "training failed").strip().splitlines()[-1])
    return result


def differences(one: Path, other: Path) -> dict[str, Any]:
    """How many of the ``tensors`` of two runs differ, in how many of their ``elements``, and by how much at most."""
    mine, theirs = _tensors(one), _tensors(other)
    if mine.keys() != theirs.keys():
        raise RuntimeError(f"the runs saved different tensors: {sorted(mine.keys() ^ theirs.keys())[:3]}")
    differing = elements = 0
    largest = 0.0
    for name in mine:
        if not torch.equal(mine[name], theirs[name]):
            gap = (mine[name].double() - theirs[name].double()).abs()
            differing += 1
            elements += int((gap > 0).sum())
            largest = max(largest, float(gap.max()))
    return {
        "tensors": len(mine),
        "differing": differing,
        "elements": elements,
        "all_elements": sum(tensor.numel() for tensor in mine.values()),
        "largest": largest,
    }


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    """Moments, and trained weights in the highest precision in which they were saved."""
    state = run / "state"
    master = state / "master.safetensors"
    weights = [master] if master.exists() else sorted((run / "final_model").glob("*.safetensors"))
    found: dict[str, torch.Tensor] = {}
    for file in (state / "optimizer.safetensors", *weights):
        found |= load_file(file)
    return found


def _first(one: TrainingResult, *parts: TrainingResult) -> int | None:
    """The first step whose loss differs; None if all are the same."""
    mine = dict(one.summary["loss_curve"])
    theirs = {step: loss for part in parts for step, loss in part.summary["loss_curve"]}
    return next((step for step in sorted(mine) if mine[step] != theirs.get(step)), None)
