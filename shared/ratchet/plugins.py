"""Checks that plug-ins named in the settings, and the optional package bitsandbytes, are installed.

Every process that needs them calls it at its start. It does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec

from ratchet.errors import SettingsError, UnknownPlugin
from ratchet.profiles.profile import get_profile
from ratchet.settings import Settings
from ratchet.tasks import registry as tasks

STRATEGIES, GENERATORS = "ratchet.strategies", "ratchet.generators"
"""Entry-point groups of curriculum strategies and of sources of examples; Ratchet's own come with its data systems."""


def require_plugins(settings: Settings) -> None:
    """Raise UnknownPlugin, listing the known ones, or SettingsError for options that a profile does not have."""
    get_profile(settings.profile.name, settings.profile.options)
    for family in settings.suites.families:
        tasks.require(family.name)
    _require(STRATEGIES, "curriculum.strategies", settings.curriculum.strategies)
    _require(GENERATORS, "generation.sources", [source.name for source in settings.generation.sources])


def _require(group: str, setting: str, names: Sequence[str]) -> None:
    """If no plug-in of the group is installed, neither are the data systems, and nothing can be checked."""
    known = {point.name for point in entry_points(group=group)}
    for name in names:
        if known and name not in known:
            raise UnknownPlugin(f"{setting}: {name!r} is not installed. Known: {', '.join(sorted(known))}.")


def require_bitsandbytes() -> None:
    """Raise SettingsError, with a remedy, if bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise SettingsError(
            "model.load_in_4bit needs bitsandbytes, which is not installed: pip install 'services/trainer[4bit]', "
            "or set model.load_in_4bit = false and train adapters on unquantized weights"
        )
