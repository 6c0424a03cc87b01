"""The status file: its writer, every field that it may hold, throughput, and the trend of the loss."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.settings.training import TrainerConfig
from trainer.core import TrainerEngine
from trainer.monitoring import STATUS_FIELDS, Throughput, TrainingStatusWriter, loss_spread, loss_trend
from transformers import TrainerCallback
from transformers.integrations import integration_utils


def test_status_fields_accumulate_and_a_new_run_clears_them(tmp_path: Path) -> None:
    writer = TrainingStatusWriter(tmp_path / "deep" / "status.json")
    writer.start(state="loading")
    writer.write(step=3)
    first = json.loads(writer.path.read_text())
    assert (first["state"], first["step"]) == ("loading", 3)
    assert first["updated_at"] >= first["started_at"]
    writer.start(state="loading")
    assert "step" not in json.loads(writer.path.read_text())


def test_the_result_of_a_child_process_is_merged_into_the_status(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    TrainingStatusWriter(path).start(state="training", step=3)
    TrainingStatusWriter(path).amend(state="failed", error="no memory")
    told = json.loads(path.read_text())
    assert (told["state"], told["step"], told["error"]) == ("failed", 3, "no memory")
    path.unlink()
    TrainingStatusWriter(path).amend(state="failed")
    assert json.loads(path.read_text())["state"] == "failed"


def test_a_reader_never_sees_half_a_status(tmp_path: Path) -> None:
    writer = TrainingStatusWriter(tmp_path / "status.json")
    writer.start(filler="x" * 20_000)
    done = threading.Event()

    def write() -> None:
        for step in range(300):
            writer.write(step=step)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not done.is_set():
        assert len(json.loads(writer.path.read_text())["filler"]) == 20_000
        reads += 1
    thread.join()
    assert reads > 0
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_an_unwritable_status_file_does_not_stop_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    TrainingStatusWriter(tmp_path / "file" / "status.json").write(step=1)
    assert (tmp_path / "file").read_text() == ""


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


def test_a_failed_run_keeps_its_last_step_and_the_reason(
    configure: Configure, graded_file: Path, tmp_path: Path
) -> None:
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


def noisy(slope: float, points: int = 50, noise: float = 0.05) -> list[float]:
    draw = random.Random(7)
    return [2.0 + slope * step + draw.gauss(0, noise) for step in range(points)]


@pytest.mark.parametrize(("slope", "said"), [(-0.02, "falling"), (0.0, "level"), (0.02, "rising")])
def test_a_trend_is_seen_through_the_noise(slope: float, said: str) -> None:
    assert loss_trend(noisy(slope)) == said


def test_only_the_end_of_the_curve_counts() -> None:
    assert loss_trend([9.0] * 100 + noisy(0.0)) == "level"


def test_few_points_show_nothing() -> None:
    assert loss_trend(noisy(-1.0, 7)) is None
    assert loss_spread([1.0]) is None


def test_a_curve_without_noise_has_a_clear_trend_or_none() -> None:
    assert loss_trend([1.0] * 8) == "level"
    assert loss_trend([float(8 - n) for n in range(8)]) == "falling"
    assert loss_spread([1.0] * 8) == 0


def test_the_average_is_over_all_steps_and_the_recent_one_over_the_last() -> None:
    pace = Throughput()
    assert (pace.average, pace.recent) == (0.0, 0.0)
    pace.begin(100.0)
    for step in range(1, 101):
        pace.step(100.0 + step, 1_000 * step)
    assert (pace.average, pace.recent) == pytest.approx((1_000, 1_000))
    for step in range(1, 21):
        pace.step(200.0 + 10 * step, 100_000 + 1_000 * step)
    assert pace.elapsed_s == 300
    assert pace.average == pytest.approx(400)
    assert 100 < pace.recent < 120


def test_the_first_step_says_how_long_it_will_take(configure: Configure, graded_file: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    engine = TrainerEngine(TrainingStatusWriter(tmp_path / "status.json"), report=told.append)
    config = configure(
        graded_file, hyperparams__batch_size=2, hyperparams__gradient_accumulation=4, hyperparams__max_steps=2
    )
    assert engine.run_job(config).success
    begun, *within, first = [progress["longest_step_s"] for progress in told[:5]]
    assert begun == 0
    assert len(within) == 3, "a report after each micro-batch but the last"
    assert min(within) > 0
    assert first > 0
    assert [progress["step"] for progress in told[:5]] == [0, 0, 0, 0, 1]


def test_epochs_are_counted_with_the_rows(configure: Configure, graded_file: Path, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    engine = TrainerEngine(TrainingStatusWriter(tmp_path / "status.json"), report=told.append)
    config = configure(graded_file, hyperparams__num_epochs=4, hyperparams__max_steps=1)
    assert engine.run_job(config).success
    (last,) = [progress for progress in told if progress["state"] == "saving"]
    rows = config.hyperparams.batch_size
    assert (last["examples_done"], last["examples_total"]) == (rows, 400)
    assert (last["epoch"], last["epochs"]) == (rows / 100, 4)
