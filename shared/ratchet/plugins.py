"""The plug-ins that the settings name, asked for at the start of every process that will need them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from ratchet.errors import UnknownPlugin
from ratchet.profiles import registry as profiles
from ratchet.settings import Settings
from ratchet.tasks import registry as tasks

ARMS = "ratchet.arms"
"""The entry-point group of curriculum strategies; those of Ratchet itself come with the data systems."""


def require_plugins(settings: Settings) -> None:
    """Raise UnknownPlugin, listing the known ones, or SettingsError for options that a profile does not have."""
    profiles.get(settings.profile.name, settings.profile.options)
    for family in settings.suites.families:
        tasks.require(family.name)
    _require_arms(settings.curriculum.arms)


def _require_arms(names: Sequence[str]) -> None:
    """Only a process that has the data systems can know the arms."""
    known = {point.name for point in entry_points(group=ARMS)}
    for name in names:
        if known and name not in known:
            raise UnknownPlugin(f"curriculum.arms: no arm {name!r}. Known: {', '.join(sorted(known))}.")
