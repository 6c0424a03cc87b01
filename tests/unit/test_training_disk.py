"""What a save takes on disk, and how many are kept."""

from __future__ import annotations

import pytest
from ratchet.settings.training import ModelSettings
from ratchet.training_disk import GB, SaveSize, kept_bytes, save_size
from ratchet.training_memory import ModelFacts

SMOLLM2 = ModelFacts(134_515_008, 576, 1536, 30, 49152, attention=576, key_value=192, dtype="bf16")


def test_a_checkpoint_has_the_precision_of_the_base_and_a_state_has_fp32() -> None:
    full = save_size(SMOLLM2, ModelSettings())
    assert full.checkpoint == pytest.approx(269e6, rel=0.03)
    assert full.state == pytest.approx(1.61e9, rel=0.03)
    adapters = save_size(SMOLLM2, ModelSettings(lora_rank=16))
    assert adapters.checkpoint == pytest.approx(19.6e6 + 5e6, rel=0.05)
    assert adapters.state < 4 * adapters.checkpoint


def test_as_many_fit_as_the_states_leave_room_for() -> None:
    assert SaveSize(10, 100).fitting(1_000) == 80
    assert SaveSize(10, 100).fitting(150) == 0


@pytest.mark.parametrize(
    ("setting_gb", "free_gb", "held_gb", "needed_gb", "expected_gb"),
    [
        (None, 60, 20, 5, 40),
        (None, 0, 80, 5, 40),
        (100, 60, 20, 5, 75),
        (30, 60, 20, 5, 30),
        (30, 1, 1, 5, 0),
        (None, None, 500, 5, 100),
        (30, None, 500, 5, 30),
    ],
)
def test_the_limit_follows_the_disk_that_is_there(
    setting_gb: float | None, free_gb: int | None, held_gb: int, needed_gb: int, expected_gb: float
) -> None:
    free = None if free_gb is None else int(free_gb * GB)
    assert kept_bytes(setting_gb, free, int(held_gb * GB), int(needed_gb * GB)) == expected_gb * GB
