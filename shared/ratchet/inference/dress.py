"""What stands between a bare question and the model: the profile and the system turn, the same everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ratchet.data.example import Example
from ratchet.inference.generator import Chat, Decoding
from ratchet.profiles import registry
from ratchet.profiles.profile import Profile, dress_prompt
from ratchet.profiles.system_turn import on_day
from ratchet.settings import Settings


@dataclass(frozen=True)
class Dress:
    """A profile with the system turn's text, in which ``{date}`` has been replaced already."""

    profile: Profile = field(default_factory=lambda: registry.get("plain"))
    system_prompt: str = ""

    @classmethod
    def named(
        cls, name: str, options: Mapping[str, Any] | None = None, system_prompt: str = "", day: str = ""
    ) -> Dress:
        """From the configured base of the system turn, on a day (YYYY-MM-DD)."""
        profile = registry.get(name, options)
        return cls(profile, on_day(profile.system_prompt(system_prompt), day))

    @classmethod
    def configured(cls, settings: Settings, at: float) -> Dress:
        """As the settings have it, on the day of a moment."""
        profile = settings.profile
        return cls.named(profile.name, profile.options, settings.monitoring.system_prompt_base, day_of(at))

    def example(self, example: Example) -> Example:
        """As it is trained on."""
        return self.profile.transform_example(example, self.system_prompt)

    def chat(self, chat: Chat) -> Chat:
        return dress_prompt(self.profile, chat, self.system_prompt)

    def decoding(self, decoding: Decoding) -> Decoding:
        """The same, ending also where the profile says."""
        stop = tuple(dict.fromkeys((*decoding.stop, *self.profile.stop())))
        return decoding.model_copy(update={"stop": stop})

    def answer(self, text: str) -> str:
        """The bare answer in a model's text."""
        return self.profile.extract_answer(text)


def day_of(at: float) -> str:
    """The day of a moment, YYYY-MM-DD, in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def decoding_key(decoding: Decoding, profile: str, options: Mapping[str, Any], system_prompt: str) -> str:
    """The ``decoding`` of a record's key: settings, profile, and the system turn before its date."""
    dressed = json.dumps([registry.get(profile, options).version, dict(options), system_prompt], sort_keys=True)
    return f"{decoding.id}/{profile}-{hashlib.sha256(dressed.encode()).hexdigest()[:8]}"
