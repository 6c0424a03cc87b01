"""Every field of the status that the docs name is filled in real runs, and no other is written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.settings.training import TrainerConfig
from trainer.core import TrainerEngine
from trainer.monitoring import STATUS_FIELDS, TrainingStatusWriter
from transformers import TrainerCallback
from transformers.integrations import integration_utils

Configure = Callable[..., TrainerConfig]


class Unreachable(TrainerCallback):
    def on_log(self, *_: Any, **__: Any) -> None:
        raise ConnectionError("the tracking server is away")


def test_a_run_fills_every_field(
    configure: Configure, graded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "unreachable", Unreachable)

    def nobody_listens(_: dict[str, Any]) -> None:
        raise BrokenPipeError("the worker is gone")

    config = configure(
        graded_file,
        monitoring__logging_steps=1,
        monitoring__preview_interval=6,
        monitoring__system_prompt_base="Be brief.",
        environment__report_to=("unreachable",),
        hyperparams__num_epochs=2,
    )
    writer = TrainingStatusWriter(tmp_path / "status.json")
    assert TrainerEngine(writer, report=nobody_listens).run_job(config).finished
    status = json.loads(writer.path.read_text())
    assert set(status) == set(STATUS_FIELDS) - {"error", "error_kind"}
    assert [name for name, value in status.items() if value is None] == ["preview_error"]
    assert (status["state"], status["epoch"], status["system_prompt"]) == ("finished", 2, "Be brief.")
    assert (status["step"], status["last_step"], status["examples_done"]) == (25, 25, 200)
    assert status["remaining_s"] == 0
    assert status["loss_trend"] == "falling"
    assert len(status["loss_curve"]) == 25
    assert status["loss_curve"][-1] == [25, status["loss"]]
    assert 0 < status["learning_rate"] <= config.hyperparams.learning_rate
    assert 0.05 < status["peak_memory_gb"] < 24


def test_a_failure_says_why_and_keeps_how_far_it_came(configure: Configure, graded_file: Path, tmp_path: Path) -> None:
    def stop() -> bool:
        raise OSError("the disk is gone")

    writer = TrainingStatusWriter(tmp_path / "status.json")
    result = TrainerEngine(writer, should_stop=stop).run_job(configure(graded_file))
    status = json.loads(writer.path.read_text())
    assert (status["state"], status["error_kind"]) == ("failed", result.error_kind) == ("failed", "transient")
    assert "the disk is gone" in status["error"]
    assert (status["step"], status["examples_total"], status["loss"]) == (0, 100, None)
    assert set(status) <= set(STATUS_FIELDS)


def test_progress_is_reported_at_once_and_then_once_a_second(
    configure: Configure, graded_file: Path, tmp_path: Path
) -> None:
    def slowly() -> bool:
        time.sleep(0.4)
        return False

    told: list[int] = []
    engine = TrainerEngine(
        TrainingStatusWriter(tmp_path / "status.json"),
        report=lambda progress: told.append(progress["step"]),
        should_stop=slowly,
    )
    assert engine.run_job(configure(graded_file, hyperparams__max_steps=4)).success
    assert told[:2] == [0, 1]
    assert told[-1] == 4
    assert len(told) < 5
