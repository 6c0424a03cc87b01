"""Whether this machine can train under the settings: its cards against the processes, its memory against the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ratchet.cli.budget import Holding, budget, shape_of
from ratchet.cli.fit import ACTIVATIONS_SHARE, Fit
from ratchet.cli.machine import gpus, training_memory
from ratchet.cli.output import size
from ratchet.errors import BrokenCheckpoint, SettingsError
from ratchet.inference.folder import CONFIG, read_json, weight_files
from ratchet.inference.tiny import TINY_MODEL
from ratchet.leases.share import TRAINING, capacity_gb, training_processes, vram_gb
from ratchet.settings import Settings

TRAINS = "4090"


def check_training(settings: Settings) -> Iterator[str]:
    """What there is to tell of training, where this host does it. Raises SettingsError for what it cannot do."""
    if TRAINS not in settings.placement.roles:
        return
    sizes_gb = capacity_gb(settings, gpus()) if settings.environment.device != "cpu" else {}
    processes = training_processes(settings, sizes_gb)
    if objection := objection_to(settings, sizes_gb):
        raise SettingsError(objection)
    yield f"training: {step_of(settings, processes)}"
    folder = model_folder(settings)
    if folder is not None:
        yield _fit(settings, folder, processes)


def model_folder(settings: Settings) -> Path | None:
    """The folder of the base model; None for the built-in one and for one of the hub.

    Raises SettingsError where the path cannot be a hub's name and no folder is there, or not all that a model has.
    """
    name = settings.model.path
    folder = Path(name)
    if name == TINY_MODEL:
        return None
    if not folder.is_dir():
        if folder.exists() or folder.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
            raise SettingsError(
                f"model.path {name}: no such folder. It takes a folder with config.json, a tokenizer and "
                "*.safetensors, the name of a model of the hub (as Qwen/Qwen3-0.6B), or tiny."
            )
        return None
    try:
        read_json(folder / CONFIG)
        weight_files(folder)
    except BrokenCheckpoint as error:
        raise SettingsError(f"model.path {name}: {error} Only safetensors weights are read.") from error
    return folder


def objection_to(settings: Settings, sizes_gb: Mapping[int, int]) -> str:
    """What speaks against the processes that are to train on these cards, with the way out; empty if nothing does."""
    environment, processes = settings.environment, training_processes(settings, sizes_gb)
    if processes == 1:
        if environment.parallelism == "ddp":
            return ""
        return (
            "environment.parallelism fsdp has nobody to share the model with: training is one process. Set "
            f"environment.processes to the number of cards (seen here: {len(sizes_gb)}), or parallelism to ddp."
        )
    if environment.device not in ("auto", "cpu", "cuda"):
        return (
            f"environment.processes {processes} have a card each, but environment.device names one "
            f"({environment.device}): set it to cuda, or processes to 1."
        )
    if environment.parallelism == "fsdp" and settings.model.load_in_4bit:
        return (
            "environment.parallelism fsdp does not share weights of 4 bits (model.load_in_4bit): use ddp, or adapters "
            "on whole weights."
        )
    needed_gb = math.ceil(vram_gb(settings, TRAINING, sizes_gb))
    roomy = sum(size_gb >= needed_gb for size_gb in sizes_gb.values())
    if (sizes_gb or environment.device == "cuda") and processes > roomy:
        return (
            f"environment.processes {processes} need a card each with {needed_gb} GB for training; of {len(sizes_gb)} "
            f"cards {roomy} have that. Lower processes (auto takes what there is) or placement.vram_gb, give the "
            "container more cards, or train on the CPU (environment.device cpu)."
        )
    return ""


def step_of(settings: Settings, processes: int) -> str:
    """How many rows an optimizer step takes, and of what that is the product."""
    hyperparams, parallelism = settings.hyperparams, settings.environment.parallelism
    rows, passes = hyperparams.batch_size, hyperparams.gradient_accumulation
    who = f"{processes} processes ({parallelism})" if processes > 1 else "1 process"
    return (
        f"a step takes {processes * rows * passes:,} rows, of {who} x batch_size {rows} x "
        f"gradient_accumulation {passes}."
    )


def shared_fit(settings: Settings, folder: Path) -> Fit | None:
    """Training all weights of a model that this machine's cards share, an equal part each; None for a single card."""
    processes = training_processes(settings, capacity_gb(settings, gpus()))
    if processes == 1 or not gpus():
        return None
    shape, holding = shape_of(folder), Holding(processes, sharded=True)
    held = budget(shape, settings.model, settings.hyperparams, half=True, holding=holding).weights
    available, where = training_memory(processes)
    return Fit(shape.parameters, math.ceil(held * (1 + ACTIVATIONS_SHARE)), available, where)


def _fit(settings: Settings, folder: Path, processes: int) -> str:
    """Whether a full micro-batch fits each process. Raises SettingsError."""
    on_cpu = settings.environment.device == "cpu"
    precision = settings.hyperparams.fp_precision
    half = precision in ("bf16", "fp16") or (precision == "auto" and bool(gpus()) and not on_cpu)
    holding = Holding.of(processes, settings.environment)
    needed = budget(shape_of(folder), settings.model, settings.hyperparams, half=half, holding=holding)
    available, where = training_memory(processes, on_cpu=on_cpu)
    each = f" in each of {processes} processes ({settings.environment.parallelism})" if processes > 1 else ""
    said = (
        f"training needs about {size(needed.total)}{each} ({size(needed.weights)} of weights, gradients and moments, "
        f"{size(needed.activations)} of activations, {size(needed.logits)} of logits) of {size(available)}: {where}."
    )
    if needed.total > available:
        shared = "" if holding.sharded else ", share the model between several cards (environment.parallelism fsdp)"
        raise SettingsError(
            f"{said} Lower hyperparams.batch_size or max_length, set model.gradient_checkpointing{shared}, or train "
            "adapters (model.lora_rank, with model.load_in_4bit)."
        )
    return said
