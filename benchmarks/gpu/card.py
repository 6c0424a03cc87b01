"""The card: its name and memory, the most that a matrix product reaches on it, and the cap on its memory.

The peak is measured rather than taken from a data sheet, whose figure no kernel reaches at the card's power limit.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import torch
from ratchet.leases.gpus import list_gpus

GIB = 1024**3
SIZES = (4096, 8192, 12_288)
"""Sides of the square matrices: the smallest fits any card, and the largest keeps the largest card busy."""
SECONDS = 0.6
"""How long each size is multiplied: long enough for the clocks to settle, and for the power limit to count."""
CPU_SIZE = 512


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def memory_bytes() -> int:
    """All memory of the card."""
    return int(torch.cuda.get_device_properties(0).total_memory)


def prepare_process(card_gb: float | None) -> None:
    """Cap the card's memory, or compute on one thread of the CPU."""
    cap_memory(card_gb)
    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def cap_memory(card_gb: float | None) -> None:
    """Let this process use at most so many GiB of the card; torch raises OutOfMemoryError beyond. No-op on a CPU."""
    if card_gb is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, card_gb * GIB / memory_bytes()), 0)


def describe_card() -> dict[str, Any]:
    """What is measured, and its matrix peak in floating-point operations a second: bf16 on a card, fp32 on a CPU."""
    if not torch.cuda.is_available():
        speed = matrix_speed(CPU_SIZE, torch.float32, seconds=0.1)
        return {"name": "CPU", "memory_gib": None, "peak": speed, "dtype": "fp32", "torch": torch.__version__}
    properties = torch.cuda.get_device_properties(0)
    drivers = [gpu.driver for gpu in list_gpus()]
    speeds = {size: matrix_speed(size, torch.bfloat16) for size in SIZES if 6 * size**2 < properties.total_memory / 4}
    return {
        "name": properties.name,
        "memory_gib": properties.total_memory / GIB,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": drivers[0] if drivers else "unknown",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "dtype": "bf16",
        "speeds": speeds,
        "peak": max(speeds.values()),
        "copy_bytes_per_s": copy_speed(),
    }


def matrix_speed(size: int, dtype: torch.dtype, seconds: float = SECONDS) -> float:
    """Operations a second of a product of two square matrices: 2 · size³ each."""
    where = device()
    left = torch.randn(size, size, device=where).to(dtype)
    right = torch.randn(size, size, device=where).to(dtype)
    out = torch.empty_like(left)

    def multiply() -> None:
        torch.mm(left, right, out=out)

    return 2.0 * size**3 / _seconds_each(multiply, seconds)


def copy_speed(size_bytes: int = GIB) -> float:
    """Bytes a second that the card's memory reads and writes while it copies."""
    source = torch.empty(size_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2.0 * size_bytes / _seconds_each(lambda: target.copy_(source), SECONDS)


def _seconds_each(work: Any, seconds: float) -> float:
    """Mean seconds of one call, after a warm-up, over at least ``seconds``."""
    for _ in range(3):
        work()
    synchronize()
    now = time.perf_counter if torch.cuda.is_available() else time.process_time  # other work on a CPU does not count
    calls, begun = 0, now()
    while now() - begun < seconds:
        for _ in range(10):
            work()
        calls += 10
        synchronize()
    return (now() - begun) / calls


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_peak() -> None:
    """Count the peak from here on, without what was needed before."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> dict[str, float | None]:
    """The most memory of this process so far, in bytes.

    Of a card: ``allocated`` by tensors, ``reserved`` by torch's allocator, and ``whole``, with what else the card has
    in use now (the context, and other processes). Of a CPU, ``whole`` is the most resident memory.
    """
    if not torch.cuda.is_available():
        return {
            "allocated": None,
            "reserved": None,
            "whole": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
        }
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    reserved = torch.cuda.max_memory_reserved()
    return {
        "allocated": float(torch.cuda.max_memory_allocated()),
        "reserved": float(reserved),
        "whole": float(reserved + beside),
    }
