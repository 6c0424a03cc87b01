"""The plug-in point of previews: who answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ratchet.inference.generator import Chat, Decoding, Generation


@runtime_checkable
class PreviewBackend(Protocol):
    """Answers questions while a model trains. It may fail or hang: who asks is prepared for both."""

    name: str
    uses_trained_model: bool
    """Training has to wait for the answers, and may not change the weights meanwhile."""

    def answer(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        """One answer a chat, in the order asked. Chats are bare: the backend, or its server, dresses them."""
        ...
