"""What NVIDIA's cards say of themselves, through NVML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Gpu:
    """A card by its index on the host, its name, and the id that it keeps in every slot."""

    index: int
    name: str
    uuid: str


@dataclass(frozen=True)
class GpuReading:
    """One look at a card. A value that the card does not tell is None; a lost card tells nothing."""

    is_lost: bool = False
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    utilization_ratio: float | None = None


class GpuReader(Protocol):
    """Reads the cards of this machine."""

    def gpus(self) -> tuple[Gpu, ...]:
        """The cards there were at the start, also those that have been lost since."""
        ...

    def read(self, gpu: Gpu) -> GpuReading:
        """The card now. Never raises: a card that does not answer is lost."""
        ...


class NoGpus:
    """Stands where there is no driver."""

    def gpus(self) -> tuple[Gpu, ...]:
        return ()

    def read(self, _gpu: Gpu) -> GpuReading:
        return GpuReading(is_lost=True)


class Nvml:
    """Cards through NVIDIA's own library: ``nvml`` is the module ``pynvml``. Raises its NVMLError without a driver."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        self._gpus = tuple(
            Gpu(index, str(nvml.nvmlDeviceGetName(handle)), str(nvml.nvmlDeviceGetUUID(handle)))
            for index, handle in enumerate(self._handles)
        )

    def gpus(self) -> tuple[Gpu, ...]:
        return self._gpus

    def read(self, gpu: Gpu) -> GpuReading:
        nvml, handle = self._nvml, self._handles[gpu.index]
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError:
            return GpuReading(is_lost=True)
        utilization = self._asked(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        milliwatts = self._asked(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        return GpuReading(
            memory_used_bytes=int(memory.used),
            memory_total_bytes=int(memory.total),
            temperature_celsius=self._asked(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            power_watts=None if milliwatts is None else milliwatts / 1000,
            utilization_ratio=None if utilization is None else utilization / 100,
        )

    def _asked(self, question: Callable[[], float]) -> float | None:
        """The answer, or None where this card has no such sensor."""
        try:
            return float(question())
        except self._nvml.NVMLError:
            return None


def gpu_reader() -> GpuReader:
    """NVML where the driver is there, else a reader of no cards."""
    import pynvml  # of use to few processes

    try:
        return Nvml(pynvml)
    except pynvml.NVMLError:
        return NoGpus()
