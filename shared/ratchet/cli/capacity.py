"""Checks of this machine's capacity: memory for training, and free space on the disk of a home. Needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.cli.output import size
from ratchet.disk import FULL_BYTES, free_bytes, nearest_existing
from ratchet.errors import BrokenCheckpoint, SettingsError, TransientError
from ratchet.inference.model_folder import CONFIG, read_json, weight_files
from ratchet.inference.tiny import TINY_MODEL
from ratchet.leases.gpus import TRAINING, capacity_gb, list_gpus, training_processes, vram_gb
from ratchet.settings import Settings
from ratchet.settings.control import TRAINER
from ratchet.settings.training import EnvironmentSettings, HyperparamSettings, ModelSettings
from ratchet.user_files import open_regular

LEAST_DISK_BYTES = 2_000_000_000
"""With less free space, the next few checkpoints may not fit."""
_STEPS_BYTES = (FULL_BYTES, 100_000_000, 500_000_000, 1_000_000_000, LEAST_DISK_BYTES)
"""Thresholds of free space that are reported as a disk fills up; below the first it counts as full."""


def training_memory(processes: int = 1, *, on_cpu: bool = False) -> tuple[int, str]:
    """Bytes for each training process, and a description of that memory: the largest GPUs, else free main memory."""
    cards = [] if on_cpu else sorted(list_gpus(), key=lambda gpu: gpu.memory_bytes, reverse=True)[:processes]
    if cards:
        each = f" (each of {processes} cards)" if processes > 1 else ""
        return cards[-1].memory_bytes, cards[-1].name + each
    why, share = "device cpu" if on_cpu else "no NVIDIA GPU", f" for each of {processes} processes" * (processes > 1)
    import psutil  # the live view checks only the disk

    return psutil.virtual_memory().available // processes, f"free memory of this machine{share} ({why})"


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


TRAINING_BYTES_PER_PARAMETER = 16
"""fp32 master weights, gradients and AdamW's two moments, four bytes each."""
ACTIVATIONS_SHARE = 0.2
"""Room for activations, as a share of the rest: a rule of thumb, since they depend on batch and length."""
HEADER_LIMIT_BYTES = 100_000_000


@dataclass(frozen=True)
class Fit:
    """The memory that a model needs and a machine has. ``where`` describes that memory."""

    parameters: int
    needed_bytes: int
    available_bytes: int
    where: str

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.available_bytes


def fit(parameters: int, available_bytes: int, where: str) -> Fit:
    """Estimate the fit for training all weights with AdamW."""
    needed = parameters * TRAINING_BYTES_PER_PARAMETER * (1 + ACTIVATIONS_SHARE)
    return Fit(parameters, math.ceil(needed), available_bytes, where)


def count_parameters(folder: Path) -> int:
    """Parameters in a folder's *.safetensors. Raises BrokenCheckpoint where there are none or one cannot be read."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise BrokenCheckpoint(f"{folder} has no *.safetensors; convert the model (pickled weights are never loaded).")
    return sum(_parameters(file) for file in files)


def _parameters(file: Path) -> int:
    tensors = {name: tensor for name, tensor in _header(file).items() if name != "__metadata__"}
    return sum(math.prod(tensor["shape"]) for tensor in tensors.values())


def _header(file: Path) -> dict[str, Any]:
    """The JSON header of a safetensors file. Its length comes first, in 8 bytes, little-endian."""
    try:
        with open_regular(file, BrokenCheckpoint) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > HEADER_LIMIT_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
    except ValueError as error:
        raise BrokenCheckpoint(f"{file} is not a safetensors file: {error}.") from error
    if not isinstance(header, dict):
        raise BrokenCheckpoint(f"{file} is not a safetensors file: its header is not a JSON object.")
    return header


TRAINED_BYTES = 16
"""For each trained parameter: fp32 master weight, gradient and AdamW's two moments."""
BUCKET_BYTES = 4
"""For each trained parameter under DDP: a second copy of its gradient, in the all-reduce buckets."""
GATHERED_GRADIENT_BYTES = 4
"""For each gathered parameter under FSDP: its fp32 gradient before the reduce-scatter."""
FOUR_BIT_BYTES = 0.6
"""For each frozen parameter in NF4, including its scales."""
LAYER_FACTOR = 34
"""Bytes of 16-bit activations for each token, layer and unit of hidden width (Korthikanti et al. 2022, eq. 1, without
the attention matrix, which fused kernels never store)."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model that determine its memory."""

    parameters: int
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int


@dataclass(frozen=True)
class Budget:
    """Bytes by part, for a micro-batch whose rows all have the maximum length."""

    weights: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.activations + self.logits


def shape_of(folder: Path) -> Shape:
    """Raises BrokenCheckpoint for a folder without a readable model."""
    config = read_json(folder / CONFIG)
    text: dict[str, Any] = config.get("text_config", config)
    hidden = int(text.get("hidden_size", 0))
    return Shape(
        count_parameters(folder),
        hidden,
        int(text.get("intermediate_size", 4 * hidden)),
        int(text.get("num_hidden_layers", 0)),
        int(text.get("vocab_size", 0)),
    )


@dataclass(frozen=True)
class ProcessLayout:
    """How many processes hold the model, and whether each holds a share of it (FSDP) or the whole (DDP)."""

    processes: int = 1
    sharded: bool = False

    @classmethod
    def of(cls, processes: int, environment: EnvironmentSettings) -> ProcessLayout:
        return cls(processes, processes > 1 and environment.parallelism == "fsdp")


def budget(
    shape: Shape,
    model: ModelSettings,
    hyperparams: HyperparamSettings,
    *,
    half: bool,
    layout: ProcessLayout | None = None,
) -> Budget:
    """Estimate for one process; kernels and allocators differ. ``half``: whether computation is in 16 bits."""
    tokens = hyperparams.batch_size * hyperparams.max_length
    layer = LAYER_FACTOR * shape.hidden * (1 if half else 2)
    kept = layer * shape.layers
    if model.gradient_checkpointing:
        kept = layer + 2 * shape.hidden * (1 if half else 2) * shape.layers
    return Budget(
        weights=_held(shape, model, layout or ProcessLayout(), half=half),
        activations=tokens * kept,
        logits=tokens * shape.vocabulary * 8,
    )


def _held(shape: Shape, model: ModelSettings, layout: ProcessLayout, *, half: bool) -> int:
    """Bytes of weights, gradients and moments in one process."""
    whole = _weights(shape, model, half=half)
    if layout.processes == 1:
        return whole
    if not layout.sharded:
        return whole + BUCKET_BYTES * _trained(shape, model)
    return whole // layout.processes + _gathered(shape, half=half)


def _gathered(shape: Shape, *, half: bool) -> int:
    """Bytes that FSDP gathers at the same time: embeddings and two layers."""
    layer = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
    embeddings = max(shape.vocabulary * shape.hidden, shape.parameters - shape.layers * layer)
    at_once = min(shape.parameters, embeddings + 2 * layer)
    return at_once * ((2 if half else 4) + GATHERED_GRADIENT_BYTES)


def _trained(shape: Shape, model: ModelSettings) -> int:
    """Number of trained parameters: all of them, or those of adapters on every linear layer."""
    widths = 4 * 2 * shape.hidden + 3 * (shape.hidden + shape.intermediate)
    return model.lora_rank * widths * shape.layers if model.lora_rank else shape.parameters


def _weights(shape: Shape, model: ModelSettings, *, half: bool) -> int:
    if not model.lora_rank:
        return shape.parameters * TRAINED_BYTES
    frozen = FOUR_BIT_BYTES if model.load_in_4bit else (2.0 if half else 4.0)
    return int(shape.parameters * frozen) + _trained(shape, model) * TRAINED_BYTES


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
        yield _fit(settings, folder, processes)


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


def shared_fit(settings: Settings, folder: Path) -> Fit | None:
    """The fit for training all weights of a model sharded over this machine's cards; None for a single card."""
    processes = training_processes(settings, capacity_gb(settings, list_gpus()))
    if processes == 1 or not list_gpus():
        return None
    shape, layout = shape_of(folder), ProcessLayout(processes, sharded=True)
    weights = budget(shape, settings.model, settings.hyperparams, half=True, layout=layout).weights
    available, where = training_memory(processes)
    return Fit(shape.parameters, math.ceil(weights * (1 + ACTIVATIONS_SHARE)), available, where)


def _fit(settings: Settings, folder: Path, processes: int) -> str:
    """Whether a full micro-batch fits each process. Raises SettingsError."""
    on_cpu = settings.environment.device == "cpu"
    precision = settings.hyperparams.fp_precision
    half = precision in ("bf16", "fp16") or (precision == "auto" and bool(list_gpus()) and not on_cpu)
    layout = ProcessLayout.of(processes, settings.environment)
    needed = budget(shape_of(folder), settings.model, settings.hyperparams, half=half, layout=layout)
    available, where = training_memory(processes, on_cpu=on_cpu)
    each = f" in each of {processes} processes ({settings.environment.parallelism})" if processes > 1 else ""
    text = (
        f"training needs about {size(needed.total)}{each} ({size(needed.weights)} of weights, gradients and moments, "
        f"{size(needed.activations)} of activations, {size(needed.logits)} of logits) of {size(available)}: {where}."
    )
    if needed.total > available:
        shard = "" if layout.sharded else ", shard the model over several cards (environment.parallelism fsdp)"
        raise SettingsError(
            f"{text} Lower hyperparams.batch_size or max_length, set model.gradient_checkpointing{shard}, or train "
            "adapters (model.lora_rank, with model.load_in_4bit)."
        )
    return text
