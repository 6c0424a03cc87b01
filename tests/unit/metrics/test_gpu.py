from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
from ratchet.metrics.gpu import GpuReading, Nvml, gpu_reader


class Library:
    """Stands for pynvml on a machine with two cards: the same functions, its units, and its kind of error."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self) -> None:
        self.lost: set[int] = set()
        self.without_power: set[int] = set()

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"NVIDIA GeForce RTX {3090 + 1000 * handle}"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        if handle in self.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(used=6, total=24)

    def nvmlDeviceGetUtilizationRates(self, _handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        if handle in self.without_power:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 310_500

    def nvmlDeviceGetTemperature(self, _handle: int, _sensor: int) -> int:
        return 61


@pytest.fixture
def library() -> Library:
    return Library()


def test_a_card_is_read_in_base_units(library: Library) -> None:
    reader = Nvml(library)
    first, second = reader.gpus()
    assert (first.name, second.uuid) == ("NVIDIA GeForce RTX 3090", "GPU-1")
    assert reader.read(second) == GpuReading(
        memory_used_bytes=6,
        memory_total_bytes=24,
        temperature_celsius=61.0,
        power_watts=310.5,
        utilization_ratio=0.97,
    )


def test_a_card_that_falls_off_the_bus_is_lost_and_the_other_is_not(library: Library) -> None:
    reader = Nvml(library)
    library.lost = {0}
    first, second = reader.gpus()
    assert reader.read(first) == GpuReading(is_lost=True)
    assert not reader.read(second).is_lost


def test_a_sensor_that_a_card_lacks_is_none(library: Library) -> None:
    reader = Nvml(library)
    library.without_power = {0}
    reading = reader.read(reader.gpus()[0])
    assert reading.power_watts is None
    assert reading.temperature_celsius == 61


def test_the_real_library_finds_the_cards_that_the_driver_knows() -> None:
    """Where there is no driver, there are no cards, and nothing is raised."""
    try:
        pynvml.nvmlInit()
        known = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        known = 0
    reader = gpu_reader()
    assert len(reader.gpus()) == known
    assert all(reader.read(gpu).memory_total_bytes for gpu in reader.gpus())
