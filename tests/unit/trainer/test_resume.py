from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ratchet.settings.training import TrainerConfig
from safetensors.torch import load_file, save_file
from trainer.checkpoint import load_order, load_state
from trainer.core import TrainerEngine, TrainingResult
from trainer.launch import train_segment
from trainer.monitoring import TrainingStatusWriter
from trainer.segment import ErrorKind, SegmentResult, SegmentSpec

from tests.support.examples import sums, write_examples
from tests.support.segments import segment_spec

Train = Callable[..., TrainingResult]


@pytest.mark.parametrize("schedule", ["constant", "linear_per_segment", "cosine_per_segment"])
def test_a_run_stopped_twice_ends_with_the_same_bits(train: Train, sum_file: Path, schedule: str) -> None:
    settings = {"hyperparams__schedule": schedule, "hyperparams__weight_decay": 0.1}
    straight = train(sum_file, "straight", **settings)

    first = train(sum_file, "first", stop_after=3, **settings)
    second = train(sum_file, "second", after=first, stop_after=5, **settings)
    third = train(sum_file, "third", after=second, **settings)

    assert [r.finished for r in (first, second, third)] == [False, False, True]
    assert [r.summary["offset"] for r in (first, second, third)] == [24, 64, 100]
    assert [r.summary["ended_by"] for r in (first, second, third)] == ["stopped", "stopped", "rows"]
    assert third.global_step == straight.global_step
    assert third.summary["weights"] == straight.summary["weights"]
    assert third.summary["total_tokens"] == straight.summary["total_tokens"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_base_in_half_precision_resumes_from_its_fp32_masters(
    train: Train, sum_file: Path, base_model: Path, tmp_path: Path, precision: str
) -> None:
    half = Path(shutil.copytree(base_model, tmp_path / "half"))
    weights = {name: tensor.bfloat16() for name, tensor in load_file(half / "model.safetensors").items()}
    save_file(weights, half / "model.safetensors", {"format": "pt"})
    settings = {"model__path": str(half), "hyperparams__fp_precision": precision}
    straight = train(sum_file, "straight", **settings)
    first = train(sum_file, "first", stop_after=4, **settings)
    second = train(sum_file, "second", after=first, hyperparams__fp_precision=precision)
    assert second.summary["weights"] == straight.summary["weights"]
    saved, master = (
        load_file(Path(str(place)) / name)
        for place, name in (
            (second.last_checkpoint_path, "model.safetensors"),
            (second.state_path, "master.safetensors"),
        )
    )
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in master.values()} == {torch.float32}
    assert all(torch.equal(master[name].bfloat16(), tensor) for name, tensor in saved.items())


def test_dropout_is_the_same_after_a_stop(train: Train, sum_file: Path, base_model: Path, tmp_path: Path) -> None:
    config = json.loads((base_model / "config.json").read_text())
    dropping = tmp_path / "dropping"
    dropping.mkdir()
    for file in base_model.iterdir():
        (dropping / file.name).write_bytes(file.read_bytes())
    (dropping / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.5}))

    plain = train(sum_file, "plain")
    straight = train(sum_file, "straight", model__path=str(dropping))
    first = train(sum_file, "first", model__path=str(dropping), stop_after=3)
    second = train(sum_file, "second", after=first)
    assert straight.summary["weights"] != plain.summary["weights"]
    assert second.summary["weights"] == straight.summary["weights"]


def test_a_killed_segment_run_again_changes_nothing(sum_file: Path, base_model: Path, tmp_path: Path) -> None:
    def spec(name: str, model: str | Path, state: Path | None) -> SegmentSpec:
        hyperparams = {"batch_size": 4, "save_steps": 10}
        return segment_spec(
            sum_file, tmp_path / name, resume_from=state, model={"path": str(model)}, hyperparams=hyperparams
        )

    def run(spec: SegmentSpec, die_after: int | None = None) -> SegmentResult:
        """The process is killed after ``die_after`` steps."""
        steps = iter(range(1, 100))

        def kill_self() -> bool:
            if next(steps) == die_after:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        return train_segment(spec, lambda _: None, kill_self)

    first = run(spec("first", base_model, None))
    assert first.last_checkpoint_path is not None
    straight = run(spec("second", first.last_checkpoint_path, first.state_path))

    killed = spec("killed", first.last_checkpoint_path, first.state_path)
    child = multiprocessing.get_context("fork").Process(target=run, args=(killed, 3))
    child.start()
    child.join(timeout=120)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "state").exists()

    again = run(killed)
    assert (again.offset, again.global_step) == (straight.offset, straight.global_step) == (80, 20)
    assert again.weights == straight.weights


def test_a_run_killed_after_any_step_and_resumed_ends_with_the_same_bits(
    train: Train, configure: Callable[..., TrainerConfig], sum_file: Path, tmp_path: Path
) -> None:
    straight = train(sum_file, "straight")
    first = train(sum_file, "first", stop_after=4)
    step = random.randrange(1, 9)
    after = {"model__path": first.last_checkpoint_path, "output__resume_from": first.state_path}

    def train_until_killed() -> None:
        steps = iter(range(1, 100))

        def kill_at_step() -> bool:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        engine = TrainerEngine(TrainingStatusWriter(tmp_path / "killed.json"), should_stop=kill_at_step)
        engine.run_job(configure(sum_file, "killed", **after))

    child = multiprocessing.get_context("fork").Process(target=train_until_killed)
    child.start()
    child.join(timeout=120)
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "state").exists()

    again = train(sum_file, "again", after=first)
    order = load_order(Path(str(first.state_path)))
    assert sorted(order) == list(range(1, 101)), "each row once"
    assert (again.finished, again.summary["offset"]) == (True, 100)
    assert again.summary["weights"] == straight.summary["weights"], f"killed after step {step}"


def test_new_settings_in_mid_batch_repeat_and_lose_no_row(train: Train, sum_file: Path) -> None:
    first = train(sum_file, "first", stop_after=3)
    order = load_order(Path(str(first.state_path)))
    second = train(
        sum_file, "second", after=first, stop_after=2, hyperparams__batch_size=5, data__seed=9, data__shuffle=False
    )
    again = load_order(Path(str(second.state_path)))

    assert sorted(order) == list(range(1, 101))
    assert np.array_equal(order, again)
    assert second.summary["offset"] == 3 * 8 + 2 * 5


def test_the_next_file_continues_optimizer_and_steps(train: Train, sum_file: Path, tmp_path: Path) -> None:
    first = train(sum_file, "first")
    other = write_examples(tmp_path / "other.jsonl", sums(40, seed=1))
    second = train(other, "second", after=first)

    assert first.global_step == 13
    assert second.global_step == 13 + 5
    state = load_state(Path(str(second.state_path)))
    assert (state.fresh_at, state.cycle.start, state.cycle.end) == (0, 13, 18)
    assert not (Path(str(second.state_path)) / "order.safetensors").exists()
    fresh = train(other, "fresh", model__path=first.last_checkpoint_path)
    assert fresh.summary["weights"] != second.summary["weights"]


def test_a_fresh_optimizer_warms_up_and_keeps_the_step_count(train: Train, sum_file: Path) -> None:
    first = train(sum_file, "first")
    second = train(
        sum_file, "second", model__path=first.last_checkpoint_path, output__first_step=first.global_step, stop_after=2
    )
    state = load_state(Path(str(second.state_path)))
    assert (second.global_step, state.fresh_at, state.cycle.start) == (15, 13, 13)


def test_a_segment_ends_at_its_planned_steps_and_the_next_one_continues(train: Train, sum_file: Path) -> None:
    first = train(sum_file, "first", hyperparams__save_steps=4)
    second = train(sum_file, "second", after=first, hyperparams__save_steps=4)
    assert [r.summary["ended_by"] for r in (first, second)] == ["steps", "steps"]
    assert [r.summary["offset"] for r in (first, second)] == [32, 64]
    cycles = [load_state(Path(str(result.state_path))).cycle for result in (first, second)]
    assert cycles[0] == cycles[1], "the learning rate goes on as if there had been one segment"


def test_a_segment_ends_when_its_time_is_up(train: Train, sum_file: Path) -> None:
    result = train(sum_file, hyperparams__segment_max_s=1e-6)
    assert (result.success, result.finished, result.summary["ended_by"]) == (True, False, "time")
    assert result.summary["offset"] == 8


def test_a_state_of_other_weights_is_refused(train: Train, sum_file: Path, base_model: Path) -> None:
    first = train(sum_file, "first", stop_after=1)
    result = train(sum_file, "second", output__resume_from=first.state_path)
    assert result.error_kind is ErrorKind.RESUME
    assert str(base_model) in str(result.error_message)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b"{"),
        ("state.json", b'{"version": 99}'),
        ("optimizer.safetensors", b"\x00" * 16),
        ("order.safetensors", b""),
    ],
)
def test_a_damaged_state_is_refused_by_the_files_name(train: Train, sum_file: Path, file: str, content: bytes) -> None:
    first = train(sum_file, "first", stop_after=1)
    (Path(str(first.state_path)) / file).write_bytes(content)
    result = train(sum_file, "second", after=first)
    assert result.error_kind is ErrorKind.RESUME
    assert file in str(result.error_message)


def test_a_state_without_its_optimizer_is_refused(train: Train, sum_file: Path) -> None:
    first = train(sum_file, "first", stop_after=1)
    (Path(str(first.state_path)) / "optimizer.safetensors").unlink()
    assert train(sum_file, "second", after=first).error_kind is ErrorKind.RESUME


def test_an_offset_that_contradicts_the_state_is_refused(train: Train, sum_file: Path) -> None:
    first = train(sum_file, "first", stop_after=2)
    assert train(sum_file, "wrong", after=first, data__offset=8).error_kind is ErrorKind.RESUME
    assert train(sum_file, "right", after=first, data__offset=16).finished
