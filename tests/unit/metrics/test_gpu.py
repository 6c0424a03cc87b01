"""NVML's own library is loaded for real; where it has no driver, there are no cards."""

from __future__ import annotations

import pynvml
from ratchet.metrics.gpu import gpu_reader


def test_the_reader_finds_the_cards_that_the_driver_knows() -> None:
    try:
        pynvml.nvmlInit()
        known = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        known = 0
    reader = gpu_reader()
    assert len(reader.gpus()) == known
    assert all(reader.read(gpu).memory_total_bytes for gpu in reader.gpus())
