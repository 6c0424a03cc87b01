from __future__ import annotations

import math
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from ratchet.metrics.training_status import TrainingCollector
from ratchet.settings import Settings
from trainer.monitoring import TrainingStatusWriter

from tests.support.scrape import Scrape


def scrape(settings: Settings) -> Scrape:
    registry = CollectorRegistry()
    registry.register(TrainingCollector(settings))
    return Scrape(generate_latest(registry).decode())


def write(settings: Settings, **fields: Any) -> None:
    settings.status_folder.mkdir(parents=True, exist_ok=True)
    TrainingStatusWriter(settings.status_folder / "training_status.json").start(**fields)


def test_before_the_first_segment_there_is_nothing(settings: Settings) -> None:
    assert scrape(settings).names() == set()


def test_the_last_preview_is_exported(settings: Settings) -> None:
    write(settings, state="training", step=120)
    assert "ratchet_training_preview_right" not in scrape(settings).names()
    write(settings, state="training", step=120, preview_step=100, preview_correct=3, preview_asked=4)
    found = scrape(settings)
    assert (found["ratchet_training_preview_right"], found["ratchet_training_preview_asked"]) == (3, 4)
    assert found["ratchet_training_preview_step"] == 100


def test_a_running_segment_is_exported(settings: Settings) -> None:
    write(settings, state="training", step=120, loss=0.5, tokens_per_s=18_000.0, examples_done=64, examples_total=128)
    found = scrape(settings)
    assert found["ratchet_training_running"] == 1
    assert found["ratchet_training_step"] == 120
    assert found["ratchet_training_loss"] == 0.5
    assert found["ratchet_training_tokens_per_second"] == 18_000
    assert found["ratchet_training_batch_done_examples"] == 64
    assert found["ratchet_training_batch_examples"] == 128
    assert found["ratchet_training_updated_timestamp_seconds"] > 0


def test_at_rest_the_speed_is_zero(settings: Settings) -> None:
    write(settings, state="finished", step=200, loss=0.4, tokens_per_s=18_000.0)
    assert scrape(settings)["ratchet_training_tokens_per_second"] == 0


def test_a_nan_loss_is_exported_as_nan(settings: Settings) -> None:
    write(settings, state="training", loss=math.nan)
    assert math.isnan(scrape(settings)["ratchet_training_loss"])


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", '{"loss": "high", "step": null}'])
def test_an_unreadable_status_file_is_ignored(settings: Settings, text: str) -> None:
    write(settings)
    (settings.status_folder / "training_status.json").write_text(text)
    assert scrape(settings).names() == set()
