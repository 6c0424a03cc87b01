"""The backend that the settings name."""

from __future__ import annotations

from typing import Any

from ratchet.errors import SettingsError
from ratchet.inference.chat import Tokenizer
from ratchet.inference.dress import Dress
from ratchet.settings.training import MonitoringSettings

from trainer.hardware import Hardware
from trainer.previews.backend import PreviewBackend
from trainer.previews.local import LocalPreviewBackend
from trainer.previews.remote import Remote3090Backend


def create_preview_backend(
    monitoring: MonitoringSettings, model: Any, tokenizer: Tokenizer, hardware: Hardware, dress: Dress
) -> PreviewBackend | None:
    """The backend of ``monitoring.preview_backend``; None for ``none``. Raises SettingsError without an address."""
    timeout_s = monitoring.preview_timeout_s
    if monitoring.preview_backend == "local":
        return LocalPreviewBackend(model, tokenizer, hardware, dress, timeout_s)
    if monitoring.preview_backend == "none":
        return None
    if monitoring.preview_url is None:
        raise SettingsError("monitoring.preview_backend remote_3090 needs monitoring.preview_url")
    return Remote3090Backend(monitoring.preview_url, monitoring.preview_model, timeout_s, monitoring.preview_api_key)
