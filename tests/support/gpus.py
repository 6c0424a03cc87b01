"""Cards that a test chooses, where NVML would be asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from ratchet.metrics.gpu import Gpu, GpuReading

WARM = GpuReading(
    memory_used_bytes=6_000_000_000,
    memory_total_bytes=24_000_000_000,
    temperature_celsius=61.0,
    power_watts=310.5,
    utilization_ratio=0.97,
)


@dataclass
class FakeGpus:
    """Answers with the reading that stands under the card's index, as NVML would; changeable between two scrapes."""

    readings: dict[int, GpuReading] = field(default_factory=lambda: {0: WARM})

    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(Gpu(index, "NVIDIA GeForce RTX 4090", f"GPU-{index}") for index in self.readings)

    def read(self, gpu: Gpu) -> GpuReading:
        return self.readings[gpu.index]
