"""Holds a model process to the GPU memory that was leased for it. Its torch must not have touched CUDA yet."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

Progress = Callable[[dict[str, Any]], None]


def run(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Call ``spec["target"]`` with ``spec["spec"]`` within ``spec["bound"]``. The target of a child process."""
    confine(spec["bound"])
    module, _, function = str(spec["target"]).partition(":")
    answer: dict[str, Any] = getattr(importlib.import_module(module), function)(spec["spec"], progress)
    return answer


def confine(bound: Mapping[str, Any]) -> None:
    """Let torch see the leased devices only, and take no more than its share of its own: more is out of memory."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(bound["devices"])
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, float(bound["share"])), int(bound["own"]))
