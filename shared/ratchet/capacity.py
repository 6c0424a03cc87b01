"""Checks of this machine's capacity: memory for training, and free space on the disk of a home. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from ratchet.disk import FULL_BYTES, free_bytes, nearest_existing
from ratchet.errors import BrokenCheckpoint, SettingsError, TransientError
from ratchet.inference.model_folder import CONFIG, read_json, weight_files
from ratchet.inference.tiny import TINY_MODEL
from ratchet.leases.gpus import TRAINING, capacity_gb, list_gpus, training_processes, vram_gb
from ratchet.settings import Settings
from ratchet.settings.control import TRAINER
from ratchet.training_disk import STATES, kept_bytes, save_size
from ratchet.training_memory import (
    ModelFacts,
    ProcessLayout,
    computes_in_16_bits,
    estimate_memory,
    model_facts,
    training_memory,
)
from ratchet.wording import size

LEAST_DISK_BYTES = 2_000_000_000
"""With less free space, the next few checkpoints may not fit."""
_STEPS_BYTES = (FULL_BYTES, 100_000_000, 500_000_000, 1_000_000_000, LEAST_DISK_BYTES)
"""Thresholds of free space that are reported as a disk fills up; below the first it counts as full."""


def free_disk(home: Path) -> tuple[int, Path]:
    """Free bytes on the disk of a home, and the nearest folder to it that exists.

    Raises TransientError for a disk that cannot be queried.
    """
    folder = nearest_existing(home.resolve())
    try:
        return free_bytes(folder), folder
    except OSError as error:
        raise TransientError(
            f"the free space on the disk of {home} cannot be read ({error.strerror}): mount it again, or move the home"
        ) from error


def disk_shortage(home: Path) -> str | None:
    """A warning, with a remedy, about the disk of a home that is nearly full; None while there is space.

    It names the threshold that was passed and not the free bytes, which change all the time: a caller that prints only
    new warnings prints each of them once.
    """
    try:
        free, folder = free_disk(home)
    except TransientError as error:
        return str(error)
    step = next((step for step in _STEPS_BYTES if free <= step), None)
    if step is None:
        return None
    how = "full" if step == FULL_BYTES else f"nearly full, with less than {size(step)} free"
    return f"the disk of {folder} is {how}: make room, lower retention.checkpoints_gb, or move the home"


def save_room(settings: Settings, facts: ModelFacts) -> tuple[bool, str]:
    """Whether a checkpoint with its training state fits this home's disk, and in words what they take and how many do.

    Raises TransientError for a disk that cannot be queried.
    """
    free, folder = free_disk(settings.home)
    needed = save_size(facts, settings.model)
    held = _artifact_bytes(settings)
    text = f"a checkpoint takes {size(needed.checkpoint)} and its training state {size(needed.state)}"
    if needed.total + FULL_BYTES > free + held:
        return False, f"{text}, more than the disk of {folder} has free ({size(free)}): make room, or move the home"
    is_local = settings.artifacts.url is None
    limit = kept_bytes(settings.retention.checkpoints_gb, free if is_local else None, held, needed.total + FULL_BYTES)
    return True, f"{text}; {needed.fitting(limit):,} checkpoints are kept in {size(limit)}, beside {STATES} states"


def _artifact_bytes(settings: Settings) -> int:
    """Bytes of the artifacts on this home's disk."""
    if settings.artifacts.url is not None:
        return 0
    files = (settings.home / "artifacts").rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file())


def check_training(settings: Settings) -> Iterator[str]:
    """Describe training on this host, if it trains. Raises SettingsError for settings that this host cannot meet."""
    if TRAINER not in settings.placement.roles:
        return
    sizes_gb = capacity_gb(settings, list_gpus()) if settings.environment.device != "cpu" else {}
    processes = training_processes(settings, sizes_gb)
    if problem := training_problem(settings, sizes_gb):
        raise SettingsError(problem)
    yield f"training: {step_of(settings, processes)}"
    folder = model_folder(settings)
    if folder is not None:
        yield training_fit(settings, folder, processes)


def model_folder(settings: Settings) -> Path | None:
    """The folder of the base model; None for the built-in model and for a hub name.

    Raises SettingsError for a path that is neither a hub name nor a folder with all files of a model.
    """
    name = settings.model.path
    folder = Path(name)
    if name == TINY_MODEL:
        return None
    if not folder.is_dir():
        if folder.exists() or folder.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
            raise SettingsError(
                f"model.path {name}: no such folder. It takes a folder with config.json, a tokenizer and "
                "*.safetensors, a hub name (such as Qwen/Qwen3-0.6B), or tiny."
            )
        return None
    try:
        read_json(folder / CONFIG)
        weight_files(folder)
    except BrokenCheckpoint as error:
        raise SettingsError(f"model.path {name}: {error} Only safetensors weights are read.") from error
    return folder


def training_problem(settings: Settings, sizes_gb: Mapping[int, int]) -> str:
    """Why the training processes cannot run on these cards, with a remedy; empty if they can."""
    environment, processes = settings.environment, training_processes(settings, sizes_gb)
    if processes == 1:
        if environment.parallelism == "ddp":
            return ""
        return (
            "environment.parallelism fsdp needs several processes, and training is one. Set "
            f"environment.processes to the number of cards (seen here: {len(sizes_gb)}), or parallelism to ddp."
        )
    if environment.device not in ("auto", "cpu", "cuda"):
        return (
            f"environment.processes {processes} needs a card for each process, but environment.device names one card "
            f"({environment.device}): set it to cuda, or processes to 1."
        )
    if environment.parallelism == "fsdp" and settings.model.load_in_4bit:
        return (
            "environment.parallelism fsdp does not shard 4-bit weights (model.load_in_4bit): use ddp, or adapters on "
            "unquantized weights."
        )
    needed_gb = math.ceil(vram_gb(settings, TRAINING, sizes_gb))
    roomy = sum(size_gb >= needed_gb for size_gb in sizes_gb.values())
    if (sizes_gb or environment.device == "cuda") and processes > roomy:
        return (
            f"environment.processes {processes} needs as many cards with {needed_gb} GB for training; of "
            f"{len(sizes_gb)} cards {roomy} have that much. Lower processes (auto takes as many as fit) or "
            "placement.vram_gb, give the container more cards, or train on the CPU (environment.device cpu)."
        )
    return ""


def step_of(settings: Settings, processes: int) -> str:
    """The number of rows in an optimizer step, and its factors."""
    hyperparams, parallelism = settings.hyperparams, settings.environment.parallelism
    rows, passes = hyperparams.batch_size, hyperparams.gradient_accumulation
    launched = f"{processes} processes ({parallelism})" if processes > 1 else "1 process"
    return (
        f"a step takes {processes * rows * passes:,} rows: {launched} x batch_size {rows} x "
        f"gradient_accumulation {passes}."
    )


def training_fit(settings: Settings, folder: Path, processes: int) -> str:
    """Whether a full micro-batch fits each process. Raises SettingsError."""
    on_cpu = settings.environment.device == "cpu"
    half = computes_in_16_bits(settings.hyperparams.fp_precision, on_gpu=bool(list_gpus()) and not on_cpu)
    layout = ProcessLayout.of(processes, settings.environment)
    needed = estimate_memory(model_facts(folder), settings.model, settings.hyperparams, half=half, layout=layout)
    available, where = training_memory(processes, on_cpu=on_cpu)
    each = f" in each of {processes} processes ({settings.environment.parallelism})" if processes > 1 else ""
    text = (
        f"training needs about {size(needed.total)}{each} ({size(needed.weights + needed.gradients)} of weights, "
        f"gradients and moments, {size(needed.activations)} of activations, {size(needed.logits)} of logits, "
        f"{size(needed.process)} of the process itself) of {size(available)}: {where}."
    )
    if needed.total > available:
        shard = "" if layout.sharded else ", shard the model over several cards (environment.parallelism fsdp)"
        raise SettingsError(
            f"{text} Lower hyperparams.batch_size or max_length, set model.gradient_checkpointing{shard}, or train "
            "adapters (model.lora_rank, with model.load_in_4bit)."
        )
    return text
