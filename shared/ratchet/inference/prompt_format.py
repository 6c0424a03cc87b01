"""PromptFormat: the profile and the system turn that turn a bare question into the model's prompt.

Data gate, training, testing, canary and serving all apply it, so that a model is prompted as it was trained. It works
on text; tokens and chat templates are in chat_codec and chat_template.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ratchet.data.example import Example
from ratchet.inference.generator import Chat, Decoding
from ratchet.profiles.profile import Profile, get_profile, on_day, prompt_as_trained
from ratchet.settings import Settings


@dataclass(frozen=True)
class PromptFormat:
    """A profile, the text of the system turn, in which ``{date}`` is already replaced, and the template's variables."""

    profile: Profile = field(default_factory=lambda: get_profile("plain"))
    system_prompt: str = ""
    template_variables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def named(
        cls,
        name: str,
        options: Mapping[str, Any] | None = None,
        system_prompt: str = "",
        day: str = "",
        template_variables: Mapping[str, Any] | None = None,
    ) -> PromptFormat:
        """From a profile's name and the configured base of the system turn, for a day (YYYY-MM-DD)."""
        profile = get_profile(name, options)
        return cls(profile, on_day(profile.system_prompt(system_prompt), day), template_variables or {})

    @classmethod
    def configured(cls, settings: Settings, at: float) -> PromptFormat:
        """From the settings, for the day of a Unix time."""
        profile, system_prompt = settings.profile, settings.monitoring.system_prompt_base
        return cls.named(profile.name, profile.options, system_prompt, day_of(at), profile.template_variables)

    def apply(self, example: Example) -> Example:
        """The example in the format used for training."""
        return self.profile.transform_example(example, self.system_prompt)

    def apply_to_prompt(self, chat: Chat) -> Chat:
        """The prompt in the format that precedes an answer in training."""
        return prompt_as_trained(self.profile, chat, self.system_prompt)

    def apply_to_decoding(self, decoding: Decoding) -> Decoding:
        """The same decoding, with the profile's stop strings added."""
        stop = tuple(dict.fromkeys((*decoding.stop, *self.profile.stop())))
        return decoding.model_copy(update={"stop": stop})

    def parse(self, text: str) -> str:
        """Extract the bare answer from a model's text."""
        return self.profile.extract_answer(text)


def day_of(at: float) -> str:
    """The day of a Unix time, YYYY-MM-DD, in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def decoding_key(
    decoding: Decoding,
    profile: str,
    options: Mapping[str, Any],
    system_prompt: str,
    template_variables: Mapping[str, Any] | None = None,
) -> str:
    """The ``decoding`` of a record's key: settings, profile, the system turn with ``{date}`` not yet replaced, and the
    variables of the chat template."""
    version = get_profile(profile, options).version
    parts = [version, dict(options), system_prompt, *([dict(template_variables)] if template_variables else [])]
    return f"{decoding.id}/{profile}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]}"
