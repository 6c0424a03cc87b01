"""What a checkpoint with its training state takes on disk, and how many bytes of them are kept.

`init`, `doctor` and the retention of training use these numbers. It needs no torch, and deletes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.settings.training import ModelSettings
from ratchet.training_memory import ModelFacts, trained_parameters

GB = 1e9

MASTER_BYTES, MOMENT_BYTES = 4, 8
"""For each trained parameter, in the training state: its fp32 weight, and AdamW's two moments."""
ADAPTER_BYTES = 4
"""For each parameter of an adapter, which is saved in fp32."""
OTHER_BYTES = 5_000_000
"""Tokenizer, configuration and the order of rows."""
STATES = 2
"""Training states that are there at least: the one that training resumes from, and the next."""

REMOTE_GB = 100.0
"""The limit where checkpoints are in an object store, which has no disk to take a share of."""

_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class SaveSize:
    """Bytes of one checkpoint and of the state that belongs to it."""

    checkpoint: int
    state: int

    @property
    def total(self) -> int:
        return self.checkpoint + self.state

    def fitting(self, limit_bytes: float) -> int:
        """How many checkpoints fit into so many bytes beside the training states."""
        return max(0, int((limit_bytes - STATES * self.state) // self.checkpoint))


def save_size(facts: ModelFacts, model: ModelSettings) -> SaveSize:
    """Estimate for a model that is trained with these settings: all weights, or adapters alone."""
    trained = trained_parameters(facts, model)
    weight = ADAPTER_BYTES if model.lora_rank else _BYTES[facts.dtype]
    has_all_bits = not model.lora_rank and facts.dtype == "fp32"  # then the checkpoint is the state's fp32 weights too
    state = trained * (MOMENT_BYTES + (0 if has_all_bits else MASTER_BYTES))
    return SaveSize(trained * weight + OTHER_BYTES, state + OTHER_BYTES)


def kept_bytes(checkpoints_gb: float | None, free_bytes: int | None, held_bytes: int, needed_bytes: int = 0) -> float:
    """The most bytes of checkpoints and states to keep.

    ``checkpoints_gb`` is the setting. Without it, it is half of the disk that is there: of the free bytes together with
    those that checkpoints hold. In any case the next save, of ``needed_bytes``, has to find room. ``free_bytes`` is
    None for an object store.
    """
    if free_bytes is None:
        return (checkpoints_gb or REMOTE_GB) * GB
    there = free_bytes + held_bytes
    wanted = checkpoints_gb * GB if checkpoints_gb is not None else there / 2
    return min(wanted, max(0, there - needed_bytes))
