"""Weights in 4 bits, which need the optional package bitsandbytes. A module of its own, since it imports no torch."""

from __future__ import annotations

from importlib.util import find_spec

from ratchet.errors import SettingsError


def require_bitsandbytes() -> None:
    """Raise SettingsError, with the way out, if bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise SettingsError(
            "model.load_in_4bit needs bitsandbytes, which is not installed: pip install 'services/trainer[4bit]', "
            "or set model.load_in_4bit = false and train adapters on whole weights"
        )
