"""What a run computes on: device, precision and attention, and the micro-batch that fits the device's memory."""

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
from ratchet.inference.quantization import require_bitsandbytes
from ratchet.settings.training import TrainerConfig
from transformers.utils import is_flash_attn_2_available

from trainer.distributed import SINGLE_PROCESS, Processes
from trainer.segment import training_mode

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Hardware:
    """What was chosen. ``precision`` is a key of DTYPES. Each process has one device."""

    device: str
    precision: str
    attention: str
    processes: Processes = SINGLE_PROCESS
    sharded: bool = False
    """Whether each process holds a shard of the model, not all of it."""

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def saved_dtype(self) -> torch.dtype:
        """Dtype of the published weights. Training itself keeps fp32 weights and computes under autocast."""
        return DTYPES[self.precision]


def pick_hardware(config: TrainerConfig, processes: Processes = SINGLE_PROCESS) -> Hardware:
    """Choose from what this machine has. Raises SettingsError for what it does not have."""
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
                "environment.parallelism fsdp does not share weights of 4 bits (model.load_in_4bit): use ddp, or "
                "adapters on whole weights"
            )
    return Hardware(device, precision, _attention(config.model.attention, on_gpu, precision), processes, sharded)


def release_memory() -> None:
    """Free what a failed run has left in memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_gb() -> float:
    """Most memory that this process has had so far: of its GPU where it uses one, else of the host (10⁹ bytes)."""
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
"""Beside the status of the run."""


class BatchSizeCache:
    """The largest micro-batch that fitted, by model and device. A file that cannot be read counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> int | None:
        """Rows that fitted after more did not; None where nothing is known."""
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
    """Equal for runs that need equal memory: by model, training mode, row length, precision and device."""
    shape = Path(config.model.path) / "config.json"
    text = shape.read_text(encoding="utf-8") if shape.is_file() else config.model.path
    model = hashlib.sha256(text.encode()).hexdigest()[:12]
    device = torch.cuda.get_device_name(hardware.device) if hardware.on_gpu else hardware.device
    parts = (model, training_mode(config.model), f"{config.hyperparams.max_length} tokens", hardware.precision, device)
    more = ["recomputed"] * config.model.gradient_checkpointing
    more += [f"shared by {hardware.processes.world_size}"] * hardware.sharded
    return " / ".join([*parts, *more])
