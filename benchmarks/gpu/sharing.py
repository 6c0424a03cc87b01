"""Sharing a card: two processes at the same time under the lease, and micro-batches that are halved out of memory."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ratchet.errors import TransientError
from ratchet.inference.gpu_limit import confine
from ratchet.leases.gpus import acquire_gpu
from ratchet.training_memory import estimate_memory, model_facts
from trainer.config import parse_config

from benchmarks.gpu.card import GIB, cap_memory, device, memory_bytes, peak_memory
from benchmarks.gpu.processes import Job, run_together
from benchmarks.gpu.resume import trained
from benchmarks.gpu.shapes import SHAPES, random_rows, write_random_model
from benchmarks.gpu.training import measure_training
from tests.support.examples import write_examples

WAIT_S = 120.0
REFUSED_AFTER_S = 0.3
SMALLEST_GB = 1


def measure_lease(card_gb: int, limit_s: float, **training: Any) -> dict[str, Any]:
    """Two processes that each lease half of ``card_gb``, an even number, and train at the same time; one alone before.

    While both hold their half, a third asks for one GB more and must be refused. Without a card only the leases are
    taken, all in this process.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        if device() == "cpu":
            return _leases_alone(folder, card_gb)
        half = card_gb // 2
        fields = {"folder": str(folder), "card_gb": card_gb, "share_gb": half, **training}
        fields["fraction"] = min(1.0, half * GIB / memory_bytes())
        [alone] = run_together([Job("leased_training", fields)], limit_s / 2)
        both = run_together([Job("leased_training", {**fields, "expects": 2})] * 2, limit_s / 2)
        for outcome in (alone, *both):
            if outcome.missing is not None:
                raise RuntimeError(outcome.missing)
        values = [outcome.values for outcome in both]
        begins, ends = max(each["begun_at"] for each in values), min(each["ended_at"] for each in values)
        return {
            "share_gb": half,
            "alone_tokens_per_s": alone.values["tokens_per_s"],
            "tokens_per_s": [each["tokens_per_s"] for each in values],
            "reserved": [each["memory"]["reserved"] for each in values],
            "held_together_s": max(0.0, ends - begins),
            "third_refused": any(each["third_refused"] for each in values),
        }


def _leases_alone(folder: Path, card_gb: int) -> dict[str, Any]:
    half = card_gb // 2
    begun = time.monotonic()
    with (
        acquire_gpu(half, folder, {0: card_gb}, timeout_s=WAIT_S, note="first"),
        acquire_gpu(half, folder, {0: card_gb}, timeout_s=WAIT_S, note="second"),
    ):
        taken_s = time.monotonic() - begun
        refused = _is_refused(folder, card_gb)
    return {"share_gb": half, "taken_s": taken_s, "third_refused": refused}


def _is_refused(folder: Path, card_gb: int) -> bool:
    try:
        with acquire_gpu(SMALLEST_GB, folder, {0: card_gb}, timeout_s=REFUSED_AFTER_S, note="third"):
            return False
    except TransientError:
        return True


def leased_training(
    folder: str, card_gb: int, share_gb: int, fraction: float, expects: int = 1, **training: Any
) -> dict[str, Any]:
    """Train within a lease of ``share_gb``, a ``fraction`` of the card, and say from when to when it was held.

    Where ``expects`` processes are to hold a lease, it waits until all do, and asks for one GB more.
    """
    place = Path(folder)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    with acquire_gpu(share_gb, place, {0: card_gb}, timeout_s=WAIT_S, note=f"training {os.getpid()}"):
        begun_at = time.time()
        (place / f"holds-{os.getpid()}-of-{expects}").touch()
        _wait_for_all(place, expects)
        refused = expects > 1 and _is_refused(place, card_gb)
        confine({"devices": [visible], "shares": [fraction]})
        values = measure_training(**training)
        return {**values, "begun_at": begun_at, "ended_at": time.time(), "third_refused": refused}


def _wait_for_all(folder: Path, expects: int) -> None:
    ends_at = time.monotonic() + WAIT_S
    while len(list(folder.glob(f"holds-*-of-{expects}"))) < expects:
        if time.monotonic() > ends_at:
            raise TimeoutError(f"{expects} processes did not hold a lease at the same time")
        time.sleep(0.05)


def measure_halving(
    model: str, lora_rank: int, wanted: int, fits: int, max_length: int, steps: int, card_bytes: float
) -> dict[str, Any]:
    """Ask for micro-batches of ``wanted`` rows on a card that is capped to the estimate for ``fits`` rows.

    The engine must end with smaller ones and the same rows a step; a second run must begin with what fitted.
    """
    with tempfile.TemporaryDirectory(prefix="gpu-") as scratch:
        folder = Path(scratch)
        base = write_random_model(folder / "model", SHAPES[model], device())
        rows = random_rows(wanted * steps, max_length, shortest=0.75)
        config = parse_config(
            {
                "model": {"path": str(base), "lora_rank": lora_rank},
                "hyperparams": {"batch_size": wanted, "learning_rate": 1e-5, "max_length": max_length},
                "monitoring": {"preview_backend": "none"},
                "data": {"dataset_path": write_examples(folder / "rows.jsonl", rows)},
                "output": {"output_dir": folder / "run"},
                "environment": {"device": device()},
            }
        )
        small = config.hyperparams.model_copy(update={"batch_size": fits})
        cap = min(card_bytes, float(estimate_memory(model_facts(base), config.model, small, half=True).total))
        cap_memory(cap / GIB)
        begun = time.perf_counter()
        first = trained(config)
        between = time.perf_counter()
        second = trained(config)
        return {
            "wanted": wanted,
            "cap": cap,
            "found": first.summary["batch_size"],
            "accumulation": first.summary["gradient_accumulation"],
            "steps": first.summary["steps"],
            "first_s": between - begun,
            "second_found": second.summary["batch_size"],
            "second_s": time.perf_counter() - between,
            "reserved": peak_memory()["reserved"],
        }
