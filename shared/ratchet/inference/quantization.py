"""Weights held in 4 bits: by bitsandbytes, which only who wants them installs. Needs no torch."""

from __future__ import annotations

from importlib.util import find_spec

from ratchet.errors import SettingsError


def require_bitsandbytes() -> None:
    """Raise SettingsError, with the way out, where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise SettingsError(
            "model.load_in_4bit needs bitsandbytes, which is not installed: pip install 'services/trainer[4bit]', "
            "or set model.load_in_4bit = false and train adapters on whole weights"
        )
