from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from ratchet.metrics.exposition import page
from ratchet.metrics.gpu import GpuReading, NoGpus
from ratchet.metrics.machine import Duties, MachineCollector

from tests.support.gpus import WARM, FakeGpus
from tests.support.scrape import Scrape


def scrape(collector: MachineCollector) -> Scrape:
    registry = CollectorRegistry()
    registry.register(collector)
    return Scrape(page(registry).body.decode())


@pytest.fixture
def gpus() -> FakeGpus:
    return FakeGpus()


def test_cards_and_disk_are_told(tmp_path: Path, gpus: FakeGpus) -> None:
    found = scrape(MachineCollector(Duties(tmp_path), tmp_path, gpus))
    assert found.value("ratchet_gpu_temperature_celsius", gpu="0", model="NVIDIA GeForce RTX 4090") == 61.0
    assert found["ratchet_gpu_power_watts"] == 310.5
    assert found["ratchet_gpu_utilization_ratio"] == 0.97
    assert found["ratchet_gpu_memory_used_bytes"] == 6e9
    assert found["ratchet_gpu_up"] == 1
    assert 0 < found["ratchet_disk_free_bytes"] <= found["ratchet_disk_size_bytes"]


def test_one_process_speaks_for_a_thing_until_it_is_gone(tmp_path: Path, gpus: FakeGpus) -> None:
    duties = Duties(tmp_path)
    first, second = MachineCollector(duties, tmp_path, gpus), MachineCollector(Duties(tmp_path), tmp_path, gpus)
    assert "ratchet_gpu_up" in scrape(first).names()
    assert scrape(second).names() == set()
    duties.release()
    assert {"ratchet_gpu_up", "ratchet_disk_free_bytes"} <= scrape(second).names()


def test_a_lost_card_is_down_and_tells_nothing_more(tmp_path: Path, gpus: FakeGpus) -> None:
    gpus.readings = {0: WARM, 1: GpuReading(is_lost=True)}
    found = scrape(MachineCollector(Duties(tmp_path), tmp_path, gpus))
    assert found.value("ratchet_gpu_up", gpu="0") == 1
    assert found.value("ratchet_gpu_up", gpu="1") == 0
    with pytest.raises(KeyError):
        found.value("ratchet_gpu_temperature_celsius", gpu="1")


def test_a_sensor_that_a_card_lacks_is_left_out(tmp_path: Path, gpus: FakeGpus) -> None:
    gpus.readings = {0: GpuReading(memory_used_bytes=1, memory_total_bytes=2)}
    names = scrape(MachineCollector(Duties(tmp_path), tmp_path, gpus)).names()
    assert "ratchet_gpu_memory_used_bytes" in names
    assert "ratchet_gpu_power_watts" not in names


def test_without_cards_and_with_the_home_gone_there_is_nothing(tmp_path: Path) -> None:
    assert scrape(MachineCollector(Duties(tmp_path), tmp_path / "away", NoGpus())).names() == set()
