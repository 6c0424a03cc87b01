"""Previews by a server on another host. Training does not wait for it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import SecretStr
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.http import HttpGenerator
from ratchet.settings.inference import InferenceSettings


class Remote3090Backend:
    """Asks any server that speaks the OpenAI chat API, once, without a second try.

    Such a server holds the weights that are live, not those in training: each answer tells which.
    """

    name = "remote_3090"
    uses_trained_model = False

    def __init__(self, url: str, model: str, timeout_s: float, api_key: SecretStr | None = None) -> None:
        settings = InferenceSettings(timeout_s=timeout_s, attempts=1, api_key=api_key)
        self._generator = HttpGenerator(url, model, settings)

    def answer(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        return self._generator.generate(chats, decoding)
