"""The plug-ins that the settings name, asked for at the start of every process that will need them."""

from __future__ import annotations

from ratchet.profiles import registry as profiles
from ratchet.settings import Settings
from ratchet.tasks import registry as tasks


def require_plugins(settings: Settings) -> None:
    """Raise UnknownPlugin, listing the known ones, or SettingsError for options that a profile does not have."""
    profiles.get(settings.profile.name, settings.profile.options)
    for family in settings.suites.families:
        tasks.require(family.name)
