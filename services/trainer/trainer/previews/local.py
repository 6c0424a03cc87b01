"""Previews by the very model that trains, between two of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ratchet.inference.chat import Tokenizer
from ratchet.inference.dress import Dress
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.inference.hardware import Hardware as InferenceHardware
from ratchet.inference.loading import LoadedModel
from ratchet.inference.local import LocalGenerator
from ratchet.settings.inference import InferenceSettings

from trainer.hardware import Hardware

IN_TRAINING = "in training"
"""What is said of weights that have no digest yet."""


class LocalPreviewBackend:
    """Answers with the profile's dress and processors, as the checkpoint would be served.

    The model is switched to evaluation and back. No global random state is touched.
    """

    name = "local"
    uses_trained_model = True

    def __init__(self, model: Any, tokenizer: Tokenizer, hardware: Hardware, dress: Dress, timeout_s: float) -> None:
        self._model = model
        self._hardware = hardware
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        loaded = LoadedModel(
            model=model,
            tokenizer=tokenizer,
            weights=IN_TRAINING,
            hardware=InferenceHardware(hardware.device, hardware.precision, hardware.attention),
            context=int(context or tokenizer.model_max_length),
        )
        self._generator = LocalGenerator(loaded, InferenceSettings(batch_timeout_s=timeout_s), dress)

    def answer(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        was_training = self._model.training
        autocast = torch.autocast(
            self._hardware.device.partition(":")[0],
            self._hardware.saved_dtype,
            enabled=self._hardware.precision != "fp32",
        )
        self._model.eval()
        try:
            with autocast:
                return self._generator.generate(chats, decoding)
        finally:
            self._model.train(was_training)
