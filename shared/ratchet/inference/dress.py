"""What stands between a bare question and the model: the profile and the system turn, the same everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet.inference.generator import Chat, Decoding
from ratchet.profiles import registry
from ratchet.profiles.profile import Profile, dress_prompt


@dataclass(frozen=True)
class Dress:
    """A profile with the system turn's text, in which ``{date}`` has been replaced already."""

    profile: Profile = field(default_factory=lambda: registry.get("plain"))
    system_prompt: str = ""

    @classmethod
    def named(cls, name: str, options: Mapping[str, Any] | None = None, system_prompt: str = "") -> Dress:
        profile = registry.get(name, options)
        return cls(profile, profile.system_prompt(system_prompt))

    def chat(self, chat: Chat) -> Chat:
        return dress_prompt(self.profile, chat, self.system_prompt)

    def decoding(self, decoding: Decoding) -> Decoding:
        """The same, ending also where the profile says."""
        stop = tuple(dict.fromkeys((*decoding.stop, *self.profile.stop())))
        return decoding.model_copy(update={"stop": stop})

    def answer(self, text: str) -> str:
        """The bare answer in a model's text."""
        return self.profile.extract_answer(text)


def decoding_key(decoding: Decoding, profile: str, options: Mapping[str, Any], system_prompt: str) -> str:
    """The ``decoding`` of a record's key: settings, profile, and the system turn before its date."""
    dressed = json.dumps([registry.get(profile, options).version, dict(options), system_prompt], sort_keys=True)
    return f"{decoding.id}/{profile}-{hashlib.sha256(dressed.encode()).hexdigest()[:8]}"
