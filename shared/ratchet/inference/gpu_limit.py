"""Limits a model process to the GPU memory that was leased for it.

It is a separate module because it must run before torch initializes CUDA, so it imports nothing that might do so.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[dict[str, Any]], None]

SHARES = "RATCHET_GPU_SHARES"
"""Environment variable with the leased share of each visible device's memory, inherited by the ranks of a launcher."""


def run(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Entry point of a child process: call ``spec["target"]`` with ``spec["spec"]`` within ``spec["gpu_limit"]``."""
    confine(spec["gpu_limit"])
    module, _, function = str(spec["target"]).partition(":")
    answer: dict[str, Any] = getattr(importlib.import_module(module), function)(spec["spec"], progress)
    return answer


def confine(limit: Mapping[str, Any]) -> None:
    """Let torch see the leased devices only. A single device is limited here; of several, each rank limits its own."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(limit["devices"])
    os.environ[SHARES] = ",".join(map(str, limit["shares"]))
    if len(limit["devices"]) == 1:
        hold_to_share(0)


def hold_to_share(device: int) -> None:
    """Limit torch to the leased share of this device's memory; using more raises an out-of-memory error. ``confine``
    has to be called before, in this process or its parent; without it nothing is limited."""
    import torch

    shares = os.environ.get(SHARES)
    if shares and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(shares.split(",")[device])), device)
