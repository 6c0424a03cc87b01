"""This machine: Python, memory, disk, and the cards with what is leased of them."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil

from ratchet.cli.capacity import TRAINS, disk_shortage, free_disk, objection_to, step_of
from ratchet.cli.doctor.finding import Finding
from ratchet.cli.output import size
from ratchet.disk import require_writable
from ratchet.leases.gpus import Gpu, capacity_gb, list_gpus, training_processes
from ratchet.leases.slots import holder
from ratchet.settings import Settings
from ratchet.systems import registry

GIB = 1024**3
SERVING = "serving"
"""Holds its lease as long as it runs; the others take turns."""


def python(_settings: Settings) -> Finding:
    missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
    version = f"Python {platform.python_version()} at {sys.prefix}"
    if missing:
        return Finding(
            "python", "note", f"{version}; without {', '.join(missing)}: systems with models cannot run here"
        )
    return Finding("python", "ok", version)


def machine(_settings: Settings) -> Finding:
    memory = psutil.virtual_memory()
    text = f"{psutil.cpu_count()} cores, {size(memory.available)} of {size(memory.total)} memory free"
    return Finding("machine", "ok", text)


def disk(settings: Settings) -> Finding:
    """Whether the home has room and can be written to."""
    free, folder = free_disk(settings.home)
    if shortage := disk_shortage(settings.home):
        return Finding("disk", "bad", f"{shortage} ({size(free)} free)")
    require_writable(settings.home.resolve())
    return Finding("disk", "ok", f"{size(free)} free at {folder}")


def systems(_settings: Settings) -> Finding:
    if broken := registry.broken():
        said = "\n".join(f"{name} cannot be imported:\n{trace}" for name, trace in broken.items())
        return Finding("systems", "bad", said.rstrip())
    names = list(registry.systems())
    return Finding("systems", "ok", f"{len(names)} installed here: {', '.join(names)}")


def cards(settings: Settings) -> Finding:
    """The driver's word on each card, and which of their gigabytes are leased, to whom."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", "ok", "no NVIDIA driver here: models run on the CPU")
    found = list_gpus()
    if not found:
        said = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
        why = " ".join((said.stdout + said.stderr).split()) or "it lists no card"
        return Finding("gpu", "bad", f"nvidia-smi: {why}: load the driver, or give the container the card")
    held = [leased(settings.lease_folder, gpu.uuid or str(index)) for index, gpu in enumerate(found)]
    text = "; ".join(_described(gpu, leases) for gpu, leases in zip(found, held, strict=True))
    if greedy := _never_fitting(settings, found, held):
        return Finding("gpu", "bad", f"{text}; {greedy}: lower placement.vram_gb (RATCHET_…_VRAM_GB in .env)")
    return Finding("gpu", "ok", text)


def training(settings: Settings) -> Finding:
    """How many processes would train here, and what speaks against it. Only the trainer's container sees its cards."""
    if TRAINS not in settings.placement.roles:
        return Finding("training", "ok", "not on this machine")
    sizes_gb = capacity_gb(settings, list_gpus())
    if objection := objection_to(settings, sizes_gb):
        return Finding("training", "bad" if sizes_gb else "note", objection)
    return Finding("training", "ok", step_of(settings, training_processes(settings, sizes_gb)))


def _never_fitting(settings: Settings, found: list[Gpu], held: list[Counter[str]]) -> str:
    """Who waits for a lease in vain: more than the largest card, or than the inference server leaves of it for ever."""
    sizes_gb = settings.placement.gpus_gb or tuple(gpu.memory_bytes // GIB for gpu in found)
    left_gb = [size_gb - leases[SERVING] for size_gb, leases in zip(sizes_gb, held, strict=False)]
    said = []
    for user, wanted_gb in settings.placement.vram_gb.items():
        if wanted_gb > (most_gb := max(sizes_gb, default=0)):
            said.append(f"{user} asks for {wanted_gb:g} GB where the largest card has {most_gb}")
        elif user != SERVING and wanted_gb > (most_gb := max(left_gb, default=0)):
            said.append(f"{user} asks for {wanted_gb:g} GB where the inference server leaves {most_gb}")
    return ", ".join(said)


def leased(folder: Path, device: str) -> Counter[str]:
    """Gigabytes of a device, by its UUID or else its index, that are leased, by who holds them."""
    held: Counter[str] = Counter()
    for path in sorted((folder / "gpu").glob(f"gpu-{device}-gb-*")):
        if (user := holder(path)) is not None:
            held[user or "somebody"] += 1
    return held


def _described(gpu: Gpu, held: Counter[str]) -> str:
    free = f"{size(gpu.free_bytes)} of " if gpu.free_bytes is not None else ""
    driver = f", driver {gpu.driver}" if gpu.driver else ""
    leases = ", ".join(f"{gb} GB by {who}" for who, gb in held.items())
    return f"{gpu.name} with {free}{size(gpu.memory_bytes)} free{driver}, leased: {leases or 'nothing'}"
