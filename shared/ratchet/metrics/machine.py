"""Metrics of a machine: its cards and its disk. Several workers share one, and one of them speaks for each thing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ratchet.file_lock import FileLock
from ratchet.leases.slots import try_take
from ratchet.metrics.families import gauge
from ratchet.metrics.gpu import Gpu, GpuReader, GpuReading


class Duties:
    """Things that this process alone reports, each held by a lock that another takes over when it dies."""

    def __init__(self, folder: Path):
        self._folder = folder / "metrics"
        self._held: dict[str, FileLock] = {}

    def mine(self, thing: str) -> bool:
        """Whether this process reports it; it does if nobody else does."""
        if thing not in self._held:
            lock = try_take(self._folder / thing)
            if lock is None:
                return False
            self._held[thing] = lock
        return True

    def release(self) -> None:
        while self._held:
            self._held.popitem()[1].release()


class MachineCollector(Collector):
    """Cards and disk at the moment of the scrape, as far as this worker is the one to speak for them."""

    def __init__(self, duties: Duties, home: Path, gpus: GpuReader):
        self._duties, self._home, self._gpus = duties, home, gpus

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._disk()
        readings = [(gpu, self._gpus.read(gpu)) for gpu in self._gpus.gpus() if self._duties.mine(f"gpu-{gpu.uuid}")]
        yield from _gpu_families(readings)

    def _disk(self) -> Iterator[GaugeMetricFamily]:
        try:
            usage = shutil.disk_usage(self._home)
            mine = self._duties.mine(f"disk-{os.stat(self._home).st_dev}")
        except OSError:
            mine = False
        labels, path = ("path",), (str(self._home),)
        free = [(path, float(usage.free))] if mine else []
        size = [(path, float(usage.total))] if mine else []
        yield gauge("ratchet_disk_free_bytes", "Room left on the disk of the home folder.", labels, free)
        yield gauge("ratchet_disk_size_bytes", "Size of the disk of the home folder.", labels, size)


def _gpu_families(readings: list[tuple[Gpu, GpuReading]]) -> Iterator[GaugeMetricFamily]:
    meanings = {
        "ratchet_gpu_memory_used_bytes": ("Memory in use on the card.", "memory_used_bytes"),
        "ratchet_gpu_memory_total_bytes": ("Memory of the card.", "memory_total_bytes"),
        "ratchet_gpu_temperature_celsius": ("Temperature of the card.", "temperature_celsius"),
        "ratchet_gpu_power_watts": ("Power that the card draws.", "power_watts"),
        "ratchet_gpu_utilization_ratio": ("Share of the time in which a kernel ran.", "utilization_ratio"),
    }
    labels = ("gpu", "model")
    up = ((_names(gpu), float(not reading.is_lost)) for gpu, reading in readings)
    yield gauge("ratchet_gpu_up", "1 if the card answers, 0 if it is lost.", labels, up)
    for name, (text, field) in meanings.items():
        known = ((_names(gpu), getattr(reading, field)) for gpu, reading in readings)
        yield gauge(name, text, labels, ((names, float(value)) for names, value in known if value is not None))


def _names(gpu: Gpu) -> tuple[str, str]:
    return str(gpu.index), gpu.name
