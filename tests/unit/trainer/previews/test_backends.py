"""Who answers previews: the model in training, a server, or nobody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.data.example import Example
from ratchet.errors import SettingsError, TransientError
from ratchet.inference.generator import Decoding
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.settings.training import MonitoringSettings, TrainerConfig
from trainer.hardware import Hardware
from trainer.previews import LocalPreviewBackend, PreviewBackend, Remote3090Backend, create_preview_backend

from .chat_server import Server


def test_the_backends_keep_the_protocol() -> None:
    assert isinstance(Remote3090Backend("http://host:8765", "ratchet", 1.0), PreviewBackend)
    assert all(hasattr(LocalPreviewBackend, name) for name in ("name", "uses_trained_model", "answer"))


def test_a_remote_backend_without_an_address_is_a_wrong_setting(configure: Callable[..., TrainerConfig]) -> None:
    with pytest.raises(SettingsError, match="preview_url"):
        configure(Path("x"), monitoring__preview_backend="remote_3090")
    with pytest.raises(ValueError, match="preview_url"):
        MonitoringSettings(preview_backend="remote_3090")


def test_which_backend_answers_and_how_it_is_asked_is_set(serve: Callable[[str], Server]) -> None:
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
