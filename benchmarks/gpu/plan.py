"""What is measured, in order of importance, on a card of a given size or at toy size on a CPU.

It imports no torch. A later measurement is left out when the time is up, so what a user wants to know first is first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu.processes import Job

CARD = "card"
TRAINING, PADDING, LOSS = "training", "padding", "loss"
RESUME, JUDGING, LEASE, HALVING = "resume", "judging", "lease", "halving"
NO_GPU = "no NVIDIA GPU"
CONTENDERS = ("engine", "Trainer", "SFTTrainer")
RANK = 16
MODELS: dict[str, dict[str, Any]] = {
    "0.6B, all weights": {"model": "0.6B"},
    "1.7B, LoRA": {"model": "1.7B", "lora_rank": RANK},
    "8B, 4-bit LoRA": {"model": "8B", "lora_rank": RANK, "load_in_4bit": True, "gradient_checkpointing": True},
}
TOY_MODELS: dict[str, dict[str, Any]] = {
    "toy 0.1M, all weights": {"model": "toy"},
    "toy 0.1M, LoRA": {"model": "toy", "lora_rank": 8},
}
RESUMED: dict[str, dict[str, Any]] = {
    "0.1B, all weights": {},
    "0.1B, LoRA": {"lora_rank": RANK},
    "0.1B, 4-bit LoRA": {"lora_rank": RANK, "load_in_4bit": True},
    "0.1B, all weights, deterministic algorithms": {"deterministic": True},
}
ROWS_OF_A_STEP = ((70.0, 16), (40.0, 8), (0.0, 4))
"""Rows of a step by GiB of the card: so many that the Trainer, which pads and projects all tokens to logits, still fits
with all weights of the 0.6B model."""
LARGE_S, USUAL_S = 240.0, 90.0
"""Longest time of a measurement: the 8B model takes minutes to write, read and hash."""


@dataclass(frozen=True)
class Measurement:
    """A row of the table of its section, and the job that fills it; without one it is not measured, for the reason."""

    section: str
    label: str
    job: Job | None
    limit_s: float = USUAL_S
    reason: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much is measured: steps of a training run, and, for a toy run, the length of its rows."""

    steps: int = 24
    toy_steps: int = 8
    toy_length: int = 96

    @property
    def is_smallest(self) -> bool:
        return self.toy_steps <= 4


def on_card(card_gib: float, sizes: Sizes) -> list[Measurement]:
    """All measurements for a card of which ``card_gib`` may be used, but that of the card itself."""
    rows = next(rows for least, rows in ROWS_OF_A_STEP if card_gib >= least)
    base: dict[str, Any] = {"batch_size": rows, "steps": sizes.steps}
    full, lora, four_bit = MODELS
    own = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
    largest, *largest_rivals = _contenders(four_bit, {**MODELS[four_bit], **base}, LARGE_S)
    return [
        *_contenders(full, {**MODELS[full], **base}),
        *_contenders(lora, {**MODELS[lora], **base}),
        largest,
        *(_resume(name) for name in list(RESUMED)[:2]),
        Measurement(JUDGING, "bf16 and fp32", _judging_on_card(), 150.0),
        Measurement(HALVING, "64 rows wanted", _halving(card_gib), 120.0),
        *_padding("0.6B", {**MODELS[full], **base}, ("sdpa", "flash_attention_2", "grouped"), own),
        Measurement(LEASE, "2 processes, 0.6B LoRA", _lease(card_gib, {**base, "batch_size": 2}), 180.0),
        *largest_rivals,
        *_losses("0.6B", {**MODELS[full], **base}),
        *(_resume(name) for name in list(RESUMED)[2:]),
    ]


def on_cpu(sizes: Sizes) -> list[Measurement]:
    """The same at toy size; what needs a card is named as not measured."""
    base: dict[str, Any] = {"batch_size": 4, "steps": sizes.toy_steps, "max_length": sizes.toy_length}
    toy = {**TOY_MODELS["toy 0.1M, all weights"], **base}
    resumed = {"max_length": sizes.toy_length, "steps": 4}
    modes = {"toy 0.1M, all weights": {}, "toy 0.1M, LoRA": {"lora_rank": 8}}
    tested = list(modes.items())[-1:] if sizes.is_smallest else list(modes.items())
    return [
        *(row for name, fields in TOY_MODELS.items() for row in _contenders(name, {**fields, **base})),
        *(_without_gpu(row) for name, fields in MODELS.items() for row in _contenders(name, fields)),
        *_padding("toy 0.1M", toy, ("sdpa", "auto"), "auto"),
        _without_gpu(Measurement(PADDING, "0.6B, packed (flash_attention_2)", None)),
        *_losses("toy 0.1M", toy),
        *(Measurement(RESUME, name, Job("resume", {"model": "toy", **fields, **resumed})) for name, fields in tested),
        *(_without_gpu(_resume(name)) for name in RESUMED),
        Measurement(JUDGING, "bf16 and fp32", _toy_judging(sizes)),
        Measurement(LEASE, "leases of 2 × 2 GB alone", Job("lease", {"card_gb": 4, "limit_s": USUAL_S})),
        _without_gpu(Measurement(LEASE, "2 processes, 0.6B LoRA", None)),
        _without_gpu(Measurement(HALVING, "64 rows wanted", None)),
    ]


def _without_gpu(row: Measurement) -> Measurement:
    return Measurement(row.section, row.label, None, reason=NO_GPU)


def _contenders(name: str, fields: dict[str, Any], limit_s: float = USUAL_S) -> Iterator[Measurement]:
    for contender in CONTENDERS:
        job = Job("training", {**fields, "contender": contender})
        yield _measurement(TRAINING, f"{name}: {contender}", job, limit_s)


def _padding(name: str, fields: dict[str, Any], attentions: tuple[str, ...], own: str) -> Iterator[Measurement]:
    """``own`` is what the engine chooses by itself, which is measured as a contender already."""
    for attention in attentions:
        layout = "padded" if attention == "sdpa" else "packed"
        variant = {} if attention == own else {"attention": attention}
        job = Job("training", {**fields, "contender": "engine", **variant})
        yield _measurement(PADDING, f"{name}, {layout} ({attention})", job)


def _losses(name: str, fields: dict[str, Any]) -> Iterator[Measurement]:
    shared = {**fields, "contender": "engine"}
    yield _measurement(LOSS, f"{name}, off: logits, then cross-entropy", Job("training", shared))
    yield _measurement(LOSS, f"{name}, torch's linear_cross_entropy", Job("training", {**shared, "loss": "torch"}))
    yield _measurement(LOSS, f"{name}, Liger's", Job("training", {**shared, "loss": "liger"}))


def _resume(name: str) -> Measurement:
    return _measurement(RESUME, name, Job("resume", {"model": "0.1B", **RESUMED[name]}), 120.0)


def _measurement(section: str, label: str, job: Job, limit_s: float = USUAL_S) -> Measurement:
    """The job's row; without it where a library is missing, which is known before a process starts."""
    needs = {
        "trl": job.fields.get("contender") == "SFTTrainer",
        "bitsandbytes": job.fields.get("load_in_4bit", False),
        "flash_attn": job.fields.get("attention") == "flash_attention_2",
        "liger_kernel": job.fields.get("loss") == "liger",
    }
    missing = [library for library, is_needed in needs.items() if is_needed and find_spec(library) is None]
    if missing:
        return Measurement(section, label, None, reason=f"{missing[0]} is not installed")
    return Measurement(section, label, job, limit_s)


def _judging_on_card() -> Job:
    fields = {"steps": 400, "rows_per_step": 64, "items": 600, "batch_sizes": (256, 64, 7), "small": True}
    return Job("judging", {**fields, "dtypes": ("bf16", "fp32")})


def _toy_judging(sizes: Sizes) -> Job:
    fields = {"steps": 4, "items": 12} if sizes.is_smallest else {"steps": 250, "items": 180}
    fields |= {"rows_per_step": 32, "small": False}
    return Job(
        "judging", {**fields, "batch_sizes": (16, 5, 3), "dtypes": ("bf16",) if sizes.is_smallest else ("bf16", "fp32")}
    )


def _lease(card_gib: float, fields: dict[str, Any]) -> Job:
    card_gb = int(card_gib) // 2 * 2
    return Job("lease", {"card_gb": card_gb, "limit_s": 170.0, "model": "0.6B", "lora_rank": RANK, **fields})


def _halving(card_gib: float) -> Job:
    fields = {"model": "0.6B", "lora_rank": RANK, "wanted": 64, "fits": 16, "max_length": 512, "steps": 2}
    return Job("halving", {**fields, "card_bytes": card_gib * 1024**3})
