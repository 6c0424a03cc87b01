"""The engine behind the server, embedded or vLLM (``serving.engine``), and the protocols that both implement.

It imports neither torch nor transformers until a checkpoint is loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ratchet.artifacts.artifact_store import artifact_store
from ratchet.inference.generator import Chat, Conditions, Decoding, Generation, Reply
from ratchet.inference.prompt_format import PromptFormat
from ratchet.serving.batcher import Batcher
from ratchet.settings import Settings
from ratchet.watchdog import Watchdog

if TYPE_CHECKING:
    from ratchet.inference.chat_codec import AnswerText, ChatCodec
    from ratchet.inference.local_generator import LocalGenerator
    from ratchet.inference.sampling import Prompt
    from ratchet.serving.pending import PendingRequest, PendingScore
    from ratchet.watchdog import Watchdog


VLLM_LOG = "vllm.log"


@dataclass(frozen=True)
class Engine:
    """How checkpoints are loaded, and how requests reach them."""

    loader: Loader
    queue: QueueMaker
    close: Callable[[], None]


def engine_of(settings: Settings, home: Path, watchdog: Watchdog) -> Engine:
    """The configured engine of the server with this home. Its threads are added to the watchdog."""
    if settings.serving.engine == "embedded":
        return Engine(model_loader(settings), Batcher, lambda: None)
    from ratchet.serving.vllm_engine import VllmEngine, VllmQueue  # imports torch

    vllm = VllmEngine(settings, home / VLLM_LOG, folder_finder(settings), watchdog)
    return Engine(vllm, VllmQueue, vllm.close)


def model_loader(settings: Settings) -> Loader:
    """A Loader that uses the prompt format of training, with today's date in the system turn."""
    find_folder = folder_finder(settings)

    def load(path: Path, weights: str) -> LocalGenerator:
        from ratchet.inference.local_generator import LocalGenerator

        prompt_format = PromptFormat.configured(settings, time.time())
        return LocalGenerator.load(find_folder(path), settings.inference, weights, prompt_format)

    return load


def folder_finder(settings: Settings) -> Callable[[Path], Path]:
    """A function that returns the folder of a checkpoint on this machine.

    A folder of another host is fetched from the artifact store; the last component of its path is the artifact's id.
    """
    artifacts = artifact_store(settings)

    def find(path: Path) -> Path:
        is_elsewhere = settings.artifacts.url is not None and not path.is_dir()
        return artifacts.fetch(path.name) if is_elsewhere else path

    return find


class ServedModel(Protocol):
    """A loaded checkpoint: a LocalGenerator or a VllmModel."""

    @property
    def weights(self) -> str: ...

    @property
    def hardware(self) -> Conditions: ...

    @property
    def context(self) -> int: ...

    @property
    def codec(self) -> ChatCodec: ...

    @property
    def text(self) -> AnswerText: ...

    @property
    def constrains_answers(self) -> bool:
        """Whether answers are held to a response_format of type json_object or json_schema."""
        ...

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt: ...

    def generate(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]: ...

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]: ...

    def close(self) -> None: ...


class Queue(Protocol):
    """Clients' requests to one loaded checkpoint: a Batcher or a VllmQueue."""

    @property
    def waiting(self) -> int: ...

    @property
    def in_flight(self) -> int:
        """Requests that are being answered."""
        ...

    def submit(self, pending: PendingRequest | PendingScore) -> None:
        """Accept a request. Raises BeingUnloaded after ``close``, and a 503 ApiError if the queue is full."""
        ...

    def close(self, timeout_s: float) -> bool:
        """Refuse new requests, answer the queued ones, and end; returns whether that took at most ``timeout_s``."""
        ...


class Loader(Protocol):
    """Loads a folder whose weights must have the given digest."""

    def __call__(self, path: Path, weights: str, /) -> ServedModel: ...


class QueueMaker(Protocol):
    """Opens a queue to a loaded checkpoint. ``limit_s`` is the timeout of a request."""

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
