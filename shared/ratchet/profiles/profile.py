"""The Profile protocol, the registry of installed profiles, and functions for the system turn that all of them share.

A profile is a plug-in of the entry-point group ``ratchet.profiles``. The built-in ones import torch only for their
logits processors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast, runtime_checkable

from ratchet.data.example import Example, Message
from ratchet.errors import SettingsError, UnknownPlugin

GROUP = "ratchet.profiles"


@runtime_checkable
class Profile(Protocol):
    """How examples are formatted and answers parsed. Every method is pure.

    Randomness is local and seeded by the prompt's content, so that the same prompt is formatted alike in training,
    evaluation and serving. The logits processors must allow the format that is used in training.
    """

    name: str
    version: str

    def system_prompt(self, base: str) -> str:
        """The system turn for conversations without one, from the configured base; empty for no system turn."""
        ...

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        """The example in the format used for training; without a closing answer, the prompt for the model."""
        ...

    def logits_processors(self, tokenizer: Any, /) -> list[Any]:
        """Stateless, batch-safe processors with the interface of ``transformers.LogitsProcessor``."""
        ...

    def stop(self) -> tuple[str, ...]:
        """Stop strings, which end an answer in addition to the end token."""
        ...

    def tokens(self) -> tuple[str, ...]:
        """Texts that become one token each in training, if the embedding has unused rows for all of them."""
        ...

    def extract_answer(self, text: str) -> str:
        """The bare answer in a model's text: the inverse of ``transform_example``."""
        ...

    def validate(self, example: Example) -> None:
        """Raise DataError for an example that cannot be formatted."""
        ...


def get_profile(name: str, options: Mapping[str, Any] | None = None) -> Profile:
    """The profile with this name and these options.

    Raises UnknownPlugin, listing the known ones, and SettingsError for options that it does not have.
    """
    point = _points().get(name)
    if point is None:
        raise UnknownPlugin(f"no profile {name!r}. Known: {', '.join(known_profiles())}.")
    make = cast(Callable[..., Profile], point.load())
    signature = inspect.signature(make)
    try:
        signature.bind(**(options or {}))
    except TypeError as error:
        has = ", ".join(signature.parameters) or "none"
        raise SettingsError(f"profile.options of {name!r}: {error}. Its options: {has}.") from error
    return make(**(options or {}))


def known_profiles() -> list[str]:
    """Names of the installed profiles."""
    return sorted(_points())


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def prompt_as_trained(profile: Profile, messages: Sequence[Message], system_prompt: str = "") -> tuple[Message, ...]:
    """A prompt in the format that precedes an answer in training."""
    return profile.transform_example(Example(messages=tuple(messages)), system_prompt).messages


def on_day(system_prompt: str, day: date | str) -> str:
    """The text with ``{date}`` replaced by the day as YYYY-MM-DD."""
    return system_prompt.replace("{date}", str(day))


def with_system_turn(example: Example, system_prompt: str) -> Example:
    """The example with the system turn in front, unless it has its own or the text is empty."""
    if not system_prompt or example.messages[0].role == "system":
        return example
    turn = Message(role="system", content=system_prompt)
    return example.model_copy(update={"messages": (turn, *example.messages)})
