"""Limits a model process to the GPU memory that was leased for it.

A module of its own: it must run before torch initializes CUDA, so it imports nothing that might.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[dict[str, Any]], None]

SHARES = "RATCHET_GPU_SHARES"
"""Environment variable: the leased share of each visible device's memory, inherited by the ranks of a launcher."""


def run(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Call ``spec["target"]`` with ``spec["spec"]`` within ``spec["gpu_limit"]``. The target of a child process."""
    confine(spec["gpu_limit"])
    module, _, function = str(spec["target"]).partition(":")
    answer: dict[str, Any] = getattr(importlib.import_module(module), function)(spec["spec"], progress)
    return answer


def confine(limit: Mapping[str, Any]) -> None:
    """Let torch see the leased devices only. One device is limited at once; of several, each rank limits its own."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(limit["devices"])
    os.environ[SHARES] = ",".join(map(str, limit["shares"]))
    if len(limit["devices"]) == 1:
        hold_to_share(0)


def hold_to_share(device: int) -> None:
    """Take no more than the leased share of this device's memory: more is out of memory. ``confine`` came before, in
    this process or in the one that started it; without it nothing is limited."""
    import torch

    shares = os.environ.get(SHARES)
    if shares and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(shares.split(",")[device])), device)
