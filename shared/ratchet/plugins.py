"""The plug-ins that the settings name, asked for at the start of every process that will need them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from ratchet.errors import UnknownPlugin
from ratchet.profiles import registry as profiles
from ratchet.settings import Settings
from ratchet.tasks import registry as tasks

ARMS, GENERATORS = "ratchet.arms", "ratchet.generators"
"""Entry-point groups of curriculum strategies and of sources of examples; Ratchet's own come with its data systems."""


def require_plugins(settings: Settings) -> None:
    """Raise UnknownPlugin, listing the known ones, or SettingsError for options that a profile does not have."""
    profiles.get(settings.profile.name, settings.profile.options)
    for family in settings.suites.families:
        tasks.require(family.name)
    _require(ARMS, "curriculum.arms", settings.curriculum.arms)
    _require(GENERATORS, "generation.sources", [source.name for source in settings.generation.sources])


def _require(group: str, setting: str, names: Sequence[str]) -> None:
    """Only a process that has the data systems can know their plug-ins."""
    known = {point.name for point in entry_points(group=group)}
    for name in names:
        if known and name not in known:
            raise UnknownPlugin(f"{setting}: {name!r} is not installed. Known: {', '.join(sorted(known))}.")
