"""The hardware of a run: device, precision and attention kernel, and the micro-batch size that fits its memory."""

from __future__ import annotations

import gc
import hashlib
import json
import resource
from dataclasses import dataclass
from pathlib import Path

import torch
from ratchet.atomic_files import write_best_effort
from ratchet.errors import SettingsError
from ratchet.plugins import require_bitsandbytes
from ratchet.settings.training import TrainerConfig
from transformers.utils import is_flash_attn_2_available

from trainer.distributed import SINGLE_PROCESS, Processes
from trainer.segment import training_mode

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Hardware:
    """The chosen device, precision and attention. ``precision`` is a key of DTYPES. Each process has one device."""

    device: str
    precision: str
    attention: str
    processes: Processes = SINGLE_PROCESS
    sharded: bool = False
    """Whether each process holds only a shard of the model."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def compute_dtype(self) -> torch.dtype:
        """Dtype of autocast and of frozen weights. Trained weights are in fp32; checkpoints have their base's dtype."""
        return DTYPES[self.precision]


def pick_hardware(config: TrainerConfig, processes: Processes = SINGLE_PROCESS) -> Hardware:
    """Choose the hardware for a run. Raises SettingsError for what this machine does not have."""
    device = config.environment.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device.startswith("cuda")
    if on_gpu and processes.world_size > 1:
        device = f"cuda:{processes.local_rank}"
    if on_gpu and not torch.cuda.is_available():
        raise SettingsError(f"environment.device is {device!r}, but torch finds no GPU; use auto or cpu")
    precision: str = config.hyperparams.fp_precision
    if precision == "auto":
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp32"
    if precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise SettingsError("hyperparams.fp_precision bf16 is not supported by this GPU; use fp16 or auto")
    sharded = config.environment.parallelism == "fsdp" and processes.world_size > 1
    if config.model.load_in_4bit:
        require_bitsandbytes()
        if sharded:
            raise SettingsError(
                "environment.parallelism fsdp cannot shard 4-bit weights (model.load_in_4bit): use ddp, or adapters "
                "on unquantized weights"
            )
    return Hardware(device, precision, _attention(config.model.attention, on_gpu, precision), processes, sharded)


def release_memory() -> None:
    """Free the memory that a failed run has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_gb() -> float:
    """Peak memory of this process so far, in 10⁹ bytes: of its GPU if it uses one, else of the host."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _attention(wanted: str, on_gpu: bool, precision: str) -> str:
    flash_fits = on_gpu and precision != "fp32"
    if wanted == "flash_attention_2" and not flash_fits:
        raise SettingsError("model.attention flash_attention_2 needs a GPU and bf16 or fp16; use auto")
    if wanted == "auto":
        return "flash_attention_2" if flash_fits and is_flash_attn_2_available() else "sdpa"
    return wanted


CACHE_FILE = "memory.json"
"""File name of the cache, in the folder of the run's status."""


class BatchSizeCache:
    """Micro-batch sizes that fit, by model and device. An unreadable file counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> int | None:
        """Number of rows that fitted after more did not; None if unknown."""
        found = self._entries().get(key)
        return found if isinstance(found, int) else None

    def put(self, key: str, rows: int) -> None:
        write_best_effort(self._path, json.dumps({**self._entries(), key: rows}, indent=2, sort_keys=True) + "\n")

    def _entries(self) -> dict[str, object]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def cache_key(config: TrainerConfig, hardware: Hardware) -> str:
    """A key that is equal for runs with the same model, training mode, row length, precision and device.

    Equal in all processes of a run as well, so that cards of different kinds train with one micro-batch.
    """
    shape = Path(config.model.path) / "config.json"
    text = shape.read_text(encoding="utf-8") if shape.is_file() else config.model.path
    model = hashlib.sha256(text.encode()).hexdigest()[:12]
    device = _card_names(hardware) if hardware.on_gpu else hardware.device
    parts = (model, training_mode(config.model), f"{config.hyperparams.max_length} tokens", hardware.precision, device)
    more = ["recomputed"] * config.model.gradient_checkpointing
    more += [f"shared by {hardware.processes.world_size}"] * hardware.sharded
    return " / ".join([*parts, *more])


def _card_names(hardware: Hardware) -> str:
    """The name of the run's card; of each kind of card on this machine, where several processes train."""
    if hardware.processes.world_size == 1:
        return torch.cuda.get_device_name(hardware.device)
    return " + ".join(sorted({torch.cuda.get_device_name(card) for card in range(torch.cuda.device_count())}))
