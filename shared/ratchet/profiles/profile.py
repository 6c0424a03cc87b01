"""The plug-in point for a contract between training and decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from ratchet.data.example import Example, Message


@runtime_checkable
class Profile(Protocol):
    """How examples are dressed and answers undressed. Every method is pure.

    Randomness is local and keyed by the prompt's content, so that the same prompt is dressed alike in
    training, evaluation and serving. What training asks for must be reachable under the profile's logits
    processors.
    """

    name: str
    version: str

    def system_prompt(self, base: str) -> str:
        """The system turn for conversations that have none, made from the configured base; empty for none."""
        ...

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        """The example as it is trained on. Without a closing answer, the prompt as it is put to the model."""
        ...

    def logits_processors(self, tokenizer: Any, /) -> list[Any]:
        """Stateless, batch-safe processors in the manner of ``transformers.LogitsProcessor``."""
        ...

    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer besides the end token."""
        ...

    def tokens(self) -> tuple[str, ...]:
        """Texts to make one token each in training, where the model's vocabulary has unused rows for all of them."""
        ...

    def extract_answer(self, text: str) -> str:
        """The bare answer in a model's text: the inverse of the dressing."""
        ...

    def validate(self, example: Example) -> None:
        """Raise DataError for an example that cannot be dressed."""
        ...


def dress_prompt(profile: Profile, messages: Sequence[Message], system_prompt: str = "") -> tuple[Message, ...]:
    """A prompt as the profile's training has shown it to the model."""
    return profile.transform_example(Example(messages=tuple(messages)), system_prompt).messages
