"""Preview backends: the model in training, a server, or none."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Example
from ratchet.errors import GenerationError, SettingsError, TransientError
from ratchet.evaluation.preview import Preview, read_previews
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.settings.training import MonitoringSettings, TrainerConfig
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from trainer.core import TrainerEngine, TrainingResult
from trainer.hardware import Hardware
from trainer.monitoring import TrainingStatusWriter
from trainer.previews import (
    LocalPreviewBackend,
    PreviewBackend,
    PreviewCallback,
    Remote3090Backend,
    create_preview_backend,
)
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.support.examples import write_examples

from .chat_server import Server


def test_the_backends_keep_the_protocol() -> None:
    assert isinstance(Remote3090Backend("http://host:8765", "ratchet", 1.0), PreviewBackend)
    assert all(hasattr(LocalPreviewBackend, name) for name in ("name", "uses_trained_model", "answer"))


def test_a_remote_backend_without_an_address_is_a_wrong_setting(configure: Callable[..., TrainerConfig]) -> None:
    with pytest.raises(SettingsError, match="preview_url"):
        configure(Path("x"), monitoring__preview_backend="remote_3090")
    with pytest.raises(ValueError, match="preview_url"):
        MonitoringSettings(preview_backend="remote_3090")


def test_the_preview_backend_follows_the_settings(serve: Callable[[str], Server]) -> None:
    def backend(**settings: Any) -> PreviewBackend | None:
        monitoring = MonitoringSettings.model_validate(settings)
        return create_preview_backend(
            monitoring, None, build_tiny_tokenizer(), Hardware("cpu", "fp32", "sdpa"), PromptFormat()
        )

    server = serve("answers")
    assert backend(preview_backend="none") is None
    elsewhere = {"preview_backend": "remote_3090", "preview_url": server.url}
    asked = backend(**elsewhere, preview_model="champion", preview_api_key="secret")
    assert asked is not None
    assert asked.answer([Example.ask("3+4=", "7").prompt], Decoding())[0].text == "7"
    assert (server.body["model"], server.key) == ("champion", "Bearer secret")


def test_a_preview_ends_at_its_time_limit(serve: Callable[[str], Server]) -> None:
    """The server would answer within the usual ten seconds."""
    told = {"preview_backend": "remote_3090", "preview_url": serve("dawdles").url}
    monitoring, hardware = MonitoringSettings.model_validate(told), Hardware("cpu", "fp32", "sdpa")
    backend = create_preview_backend(monitoring, None, build_tiny_tokenizer(), hardware, PromptFormat(), timeout_s=0.05)
    assert backend is not None
    with pytest.raises(TransientError, match="ReadTimeout"):
        backend.answer([Example.ask("3+4=", "7").prompt], Decoding())


Train = Callable[..., TrainingResult]
PREVIEWS = {"monitoring__preview_interval": 5, "monitoring__preview_samples": 2}


def recorded(folder: Path) -> list[Preview]:
    return read_previews(folder / "previews.jsonl", 100)


def test_the_model_in_training_is_asked_about_rows_it_has_not_seen(
    train: Train, graded_file: Path, tmp_path: Path
) -> None:
    result = train(graded_file, **PREVIEWS)
    assert result.success, result.error_message
    found = recorded(tmp_path)
    assert [(preview.step, preview.backend, preview.seen) for preview in found] == [
        (5, "local", False),
        (5, "local", False),
        (10, "local", False),
        (10, "local", False),
    ]
    assert all(preview.family == "chain_sum" and preview.gold for preview in found)
    assert {preview.weights for preview in found} == {"in training"}
    status = json.loads((tmp_path / "run.status.json").read_text())
    assert (status["preview_step"], status["preview_asked"], status["preview_error"]) == (10, 2, None)


def test_learnt_rows_are_answered_right(train: Train, graded_file: Path, tmp_path: Path) -> None:
    family = registry.get("chain_sum")
    same = [to_example(family.generate(1, 3), "test")] * 320
    result = train(
        write_examples(tmp_path / "same.jsonl", same),
        hyperparams__schedule="constant",
        hyperparams__learning_rate=3e-3,
        **{**PREVIEWS, "monitoring__preview_interval": 40},
    )
    assert result.success
    assert [preview.correct for preview in recorded(tmp_path)] == [True, True]


def test_previews_do_not_change_what_is_trained(train: Train, sum_file: Path) -> None:
    without = train(sum_file, "without", monitoring__preview_backend="none")
    with_them = train(sum_file, "with", **PREVIEWS)
    assert with_them.summary["weights"] == without.summary["weights"]


def remote(server: Server) -> dict[str, Any]:
    return {**PREVIEWS, "monitoring__preview_backend": "remote_3090", "monitoring__preview_url": server.url}


def test_a_server_elsewhere_is_asked_and_named_with_its_weights(
    train: Train, graded_file: Path, tmp_path: Path, serve: Callable[[str], Server]
) -> None:
    result = train(graded_file, **remote(serve("answers")))
    assert result.success
    found = recorded(tmp_path)
    assert {(preview.backend, preview.weights, preview.answer) for preview in found} == {("remote_3090", "abc", "7")}


def test_a_failing_preview_server_is_reported_and_training_finishes(
    train: Train, graded_file: Path, tmp_path: Path, serve: Callable[[str], Server]
) -> None:
    assert train(graded_file, **remote(serve("fails"))).finished
    assert recorded(tmp_path) == []
    assert "status 500" in json.loads((tmp_path / "run.status.json").read_text())["preview_error"]


def test_a_hanging_preview_server_is_asked_once_and_training_finishes(
    train: Train, graded_file: Path, tmp_path: Path, serve: Callable[[str], Server]
) -> None:
    server = serve("hangs")
    result = train(graded_file, **remote(server))
    assert result.finished
    assert recorded(tmp_path) == []
    assert json.loads((tmp_path / "run.status.json").read_text())["preview_error"]


class Stuck:
    """A backend that never comes back by itself, or that throws."""

    name = "stuck"
    uses_trained_model = True

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = 0
        self.released = threading.Event()

    def answer(self, *_: Any) -> list[Generation]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        self.released.wait(60)
        return []


def previewer(
    backend: PreviewBackend, configure: Callable[..., TrainerConfig], data: Path, **monitoring: Any
) -> tuple[Any, list[Any]]:
    import numpy as np
    from trainer.dataset import examples_at
    from trainer.optimizer import Cycle, Schedule
    from trainer.run import SegmentPlan

    told_of = {"preview_interval": 1, **monitoring}
    config = configure(data, **{f"monitoring__{name}": value for name, value in told_of.items()})
    plan = SegmentPlan(
        "0", np.arange(1, 101), 0, 8, 13, 0, 0, Schedule.of(config.hyperparams, Cycle(0, 13), fresh_at=0)
    )
    told: list[Any] = []
    made = PreviewCallback(
        backend,
        examples_at(data, [100, 99]),
        plan,
        config.monitoring,
        PromptFormat(),
        data.parent / "previews.jsonl",
        lambda **fields: told.append(fields),
        timeout_s=0.05,
        margin_s=0.05,
    )
    return made, told


def take_steps(callback: PreviewCallback, tmp_path: Path, steps: int) -> None:
    arguments, state = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"), TrainerState()
    for step in range(1, steps + 1):
        state.global_step = step
        callback.on_step_end(arguments, state, TrainerControl())
    callback.on_train_end(arguments, state, TrainerControl())


def test_a_backend_that_hangs_is_waited_for_once_and_not_asked_again(
    configure: Callable[..., TrainerConfig], sum_file: Path, tmp_path: Path
) -> None:
    backend = Stuck()
    callback, told = previewer(backend, configure, sum_file)
    take_steps(callback, tmp_path, 3)
    assert backend.asked == 1
    assert "hangs" in told[0]["preview_error"]
    assert "not answered yet" in told[1]["preview_error"]
    backend.released.set()


def test_a_backend_that_raises_is_asked_again_next_time(
    configure: Callable[..., TrainerConfig], sum_file: Path, tmp_path: Path
) -> None:
    backend = Stuck(GenerationError("no"))
    callback, told = previewer(backend, configure, sum_file)
    take_steps(callback, tmp_path, 3)
    assert backend.asked == 3
    assert {fields["preview_error"].partition(": ")[2] for fields in told} == {"GenerationError: no"}


def test_a_reported_status_survives_a_journal_that_cannot_be_written(
    configure: Callable[..., TrainerConfig], graded_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "previews.jsonl").mkdir()
    engine = TrainerEngine(TrainingStatusWriter(tmp_path / "status.json"))
    assert engine.run_job(configure(graded_file, **PREVIEWS)).finished
    assert "Error" in json.loads((tmp_path / "status.json").read_text())["preview_error"]


@dataclass
class Asked:
    """A backend that answers nothing, and notes how it was asked."""

    name = "asked"
    uses_trained_model = True
    heard: list[Decoding] = field(default_factory=list)

    def answer(self, _chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        self.heard.append(decoding)
        raise GenerationError("no")


def test_the_preview_interval_follows_the_setting(
    configure: Callable[..., TrainerConfig], sum_file: Path, tmp_path: Path
) -> None:
    backend = Asked()
    callback, _ = previewer(backend, configure, sum_file, preview_interval=3)
    take_steps(callback, tmp_path, 7)
    assert backend.heard == [Decoding(max_new_tokens=128, temperature=0.0)] * 2


def test_the_preview_size_follows_the_setting(train: Train, graded_file: Path, tmp_path: Path) -> None:
    train(graded_file, **{**PREVIEWS, "monitoring__preview_samples": 3, "monitoring__preview_interval": 10})
    assert len(recorded(tmp_path)) == 3
