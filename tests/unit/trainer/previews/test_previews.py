"""Previews in real runs: what they record, that they change nothing, and that no backend can stop training."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Example
from ratchet.errors import GenerationError, SettingsError, SurroundingsError
from ratchet.evaluation.preview import Preview, read_previews
from ratchet.inference.dress import Dress
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.settings.training import MonitoringSettings, TrainerConfig
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.testing.examples import write_examples
from trainer.core import TrainerEngine, TrainingResult
from trainer.hardware import Hardware
from trainer.monitoring import TrainingStatusWriter
from trainer.previews import LocalPreviewBackend, PreviewBackend, Remote3090Backend
from trainer.previews.callback import Previewer
from trainer.previews.factory import create_preview_backend
from transformers import TrainerControl, TrainerState, TrainingArguments

Train = Callable[..., TrainingResult]
PREVIEWS = {"monitoring__preview_interval": 5, "monitoring__preview_samples": 2, "monitoring__preview_max_tokens": 8}


@pytest.fixture
def graded_file(tmp_path: Path) -> Path:
    family = registry.get("chain_sum")
    return write_examples(tmp_path / "graded.jsonl", [to_example(family.generate(1, n), "test") for n in range(100)])


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


def test_what_is_learnt_is_right(train: Train, graded_file: Path, tmp_path: Path) -> None:
    family = registry.get("chain_sum")
    same = [to_example(family.generate(1, 3), "test")] * 320
    result = train(
        write_examples(tmp_path / "same.jsonl", same),
        hyperparams__schedule="constant",
        hyperparams__learning_rate=3e-3,
        **{**PREVIEWS, "monitoring__preview_max_tokens": 24, "monitoring__preview_interval": 40},
    )
    assert result.success
    assert [preview.correct for preview in recorded(tmp_path)] == [True, True]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_previews_do_not_change_what_is_trained(train: Train, sum_file: Path, temperature: float) -> None:
    without = train(sum_file, "without", monitoring__preview_backend="none")
    with_them = train(sum_file, "with", **{**PREVIEWS, "monitoring__preview_temperature": temperature})
    assert with_them.summary["weights"] == without.summary["weights"]


class Server(ThreadingHTTPServer):
    """A chat server that answers, fails, or hangs until it is released."""

    def __init__(self, mood: str) -> None:
        self.mood = mood
        self.released = threading.Event()
        self.asked = 0
        self.key: str | None = None
        self.body: dict[str, Any] = {}
        super().__init__(("127.0.0.1", 0), Answering)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.asked += 1
        self.server.key = self.headers["authorization"]
        self.server.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.server.mood == "hangs":
            self.server.released.wait(60)
        if self.server.mood == "dawdles":
            self.server.released.wait(2)
        status = 500 if self.server.mood == "fails" else 200
        body = json.dumps(
            {"choices": [{"message": {"content": "7"}, "finish_reason": "stop"}], "system_fingerprint": "abc"}
        ).encode()
        try:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def serve() -> Iterator[Callable[[str], Server]]:
    servers: list[Server] = []

    def start(mood: str) -> Server:
        servers.append(Server(mood))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.released.set()
        server.shutdown()
        server.server_close()


def remote(server: Server) -> dict[str, Any]:
    return {**PREVIEWS, "monitoring__preview_backend": "remote_3090", "monitoring__preview_url": server.url}


def test_a_server_elsewhere_is_asked_and_named_with_its_weights(
    train: Train, graded_file: Path, tmp_path: Path, serve: Callable[[str], Server]
) -> None:
    result = train(graded_file, **remote(serve("answers")))
    assert result.success
    found = recorded(tmp_path)
    assert {(preview.backend, preview.weights, preview.answer) for preview in found} == {("remote_3090", "abc", "7")}


def test_a_server_that_fails_is_told_of_and_training_ends_well(
    train: Train, graded_file: Path, tmp_path: Path, serve: Callable[[str], Server]
) -> None:
    assert train(graded_file, **remote(serve("fails"))).finished
    assert recorded(tmp_path) == []
    assert "status 500" in json.loads((tmp_path / "run.status.json").read_text())["preview_error"]


def test_a_server_that_hangs_is_asked_once_and_training_ends_well(
    train: Train, graded_file: Path, tmp_path: Path, serve: Callable[[str], Server]
) -> None:
    server = serve("hangs")
    result = train(graded_file, **remote(server), monitoring__preview_timeout_s=0.2)
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
    from trainer.plan import SegmentPlan
    from trainer.schedule import Cycle, Schedule

    told_of = {"preview_interval": 1, "preview_timeout_s": 0.05, **monitoring}
    config = configure(data, **{f"monitoring__{name}": value for name, value in told_of.items()})
    plan = SegmentPlan(
        "0", np.arange(1, 101), 0, 8, 13, 0, 0, Schedule.of(config.hyperparams, Cycle(0, 13), fresh_at=0)
    )
    told: list[Any] = []
    made = Previewer(
        backend,
        examples_at(data, [100, 99]),
        plan,
        config.monitoring,
        Dress(),
        data.parent / "previews.jsonl",
        lambda **fields: told.append(fields),
        patience_s=0.05,
    )
    return made, told


def take_steps(callback: Previewer, tmp_path: Path, steps: int) -> None:
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
    assert "not come back" in told[1]["preview_error"]
    backend.released.set()


def test_a_backend_that_throws_is_asked_again_next_time(
    configure: Callable[..., TrainerConfig], sum_file: Path, tmp_path: Path
) -> None:
    backend = Stuck(GenerationError("no"))
    callback, told = previewer(backend, configure, sum_file)
    take_steps(callback, tmp_path, 3)
    assert backend.asked == 3
    assert {fields["preview_error"].partition(": ")[2] for fields in told} == {"GenerationError: no"}


def test_the_backends_keep_the_protocol() -> None:
    assert isinstance(Remote3090Backend("http://host:8765", "ratchet", 1.0), PreviewBackend)
    assert isinstance(Stuck(), PreviewBackend)
    assert all(hasattr(LocalPreviewBackend, name) for name in ("name", "uses_trained_model", "answer"))


def test_a_remote_backend_without_an_address_is_a_wrong_setting(configure: Callable[..., TrainerConfig]) -> None:
    with pytest.raises(SettingsError, match="preview_url"):
        configure(Path("x"), monitoring__preview_backend="remote_3090")
    with pytest.raises(ValueError, match="preview_url"):
        MonitoringSettings(preview_backend="remote_3090")


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


def test_when_and_how_previews_are_asked_is_set(
    configure: Callable[..., TrainerConfig], sum_file: Path, tmp_path: Path
) -> None:
    backend = Asked()
    told = {"preview_interval": 3, "preview_max_tokens": 7, "preview_temperature": 0.5}
    callback, _ = previewer(backend, configure, sum_file, **told)
    take_steps(callback, tmp_path, 7)
    assert backend.heard == [Decoding(max_new_tokens=7, temperature=0.5)] * 2


def test_how_many_questions_a_preview_has_is_set(train: Train, graded_file: Path, tmp_path: Path) -> None:
    train(graded_file, **{**PREVIEWS, "monitoring__preview_samples": 3, "monitoring__preview_interval": 10})
    assert len(recorded(tmp_path)) == 3


def test_which_backend_answers_and_how_it_is_asked_is_set(serve: Callable[[str], Server]) -> None:
    def backend(**settings: Any) -> PreviewBackend | None:
        monitoring = MonitoringSettings.model_validate(settings)
        return create_preview_backend(
            monitoring, None, build_tiny_tokenizer(), Hardware("cpu", "fp32", "sdpa"), Dress()
        )

    server = serve("answers")
    assert backend(preview_backend="none") is None
    elsewhere = {"preview_backend": "remote_3090", "preview_url": server.url}
    asked = backend(**elsewhere, preview_model="champion", preview_api_key="secret")
    assert asked is not None
    assert asked.answer([Example.ask("3+4=", "7").prompt], Decoding())[0].text == "7"
    assert (server.body["model"], server.key) == ("champion", "Bearer secret")


def test_how_long_a_preview_may_take_is_set(serve: Callable[[str], Server]) -> None:
    """The server would answer within the usual ten seconds."""
    told = {"preview_backend": "remote_3090", "preview_url": serve("dawdles").url, "preview_timeout_s": 0.05}
    monitoring, hardware = MonitoringSettings.model_validate(told), Hardware("cpu", "fp32", "sdpa")
    backend = create_preview_backend(monitoring, None, build_tiny_tokenizer(), hardware, Dress())
    assert backend is not None
    with pytest.raises(SurroundingsError, match="ReadTimeout"):
        backend.answer([Example.ask("3+4=", "7").prompt], Decoding())
