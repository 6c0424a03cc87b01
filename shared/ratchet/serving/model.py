"""What the server needs of a loaded checkpoint, whichever engine computes it. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ratchet.inference.generator import Chat, Decoding, Generation, Reply

if TYPE_CHECKING:
    from ratchet.inference.answer_text import AnswerText
    from ratchet.inference.sampling import Prompt
    from ratchet.serving.ticket import Ticket
    from ratchet.watchdog import Watchdog


class Computes(Protocol):
    """See ratchet.serving.protocol.Conditions."""

    @property
    def engine(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def gpu_class(self) -> str: ...


class ServedModel(Protocol):
    """A checkpoint that answers: ratchet.inference.local.LocalGenerator, or one behind vLLM."""

    @property
    def weights(self) -> str: ...

    @property
    def hardware(self) -> Computes: ...

    @property
    def context(self) -> int: ...

    @property
    def text(self) -> AnswerText: ...

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt: ...

    def generate(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]: ...

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]: ...

    def close(self) -> None: ...


class Queue(Protocol):
    """Clients' requests to one loaded checkpoint: ratchet.serving.batcher.Batcher, or the way to vLLM."""

    @property
    def waiting(self) -> int: ...

    @property
    def under_way(self) -> int:
        """Requests that are being answered."""
        ...

    def submit(self, ticket: Ticket) -> None:
        """Take a ticket to settle. Raises Retired after ``close``, and a 503 Refusal where the queue is full."""
        ...

    def close(self, timeout_s: float) -> bool:
        """Take no more tickets, answer those that are queued, and end; whether that was done in time."""
        ...


class Loader(Protocol):
    """Loads a folder whose weights must have the given digest."""

    def __call__(self, path: Path, weights: str, /) -> ServedModel: ...


class QueueMaker(Protocol):
    """Opens a queue to a loaded checkpoint. ``limit_s`` is how long a request may take, by which it is watched."""

    def __call__(
        self,
        checkpoint_id: str,
        generator: Any,
        *,
        max_batch: int,
        max_queue: int,
        limit_s: float,
        watchdog: Watchdog,
    ) -> Queue: ...
