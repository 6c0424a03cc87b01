"""What computes behind the server: this process, or vLLM (``serving.engine``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.artifacts.configured import artifact_store
from ratchet.inference.dress import Dress
from ratchet.serving.batcher import Batcher
from ratchet.serving.model import Loader, QueueMaker
from ratchet.settings import Settings
from ratchet.watchdog import Watchdog

if TYPE_CHECKING:
    from ratchet.inference.local import LocalGenerator

VLLM_LOG = "vllm.log"


@dataclass(frozen=True)
class Engine:
    """How checkpoints are loaded, and how requests get to them."""

    loader: Loader
    queue: QueueMaker
    close: Callable[[], None]


def engine_of(settings: Settings, home: Path, watchdog: Watchdog) -> Engine:
    """The configured engine of a server with that home; its threads are watched."""
    if settings.serving.engine == "embedded":
        return Engine(model_loader(settings), Batcher, lambda: None)
    from ratchet.serving.vllm_engine import VllmEngine, VllmQueue  # imports torch

    vllm = VllmEngine(settings, home / VLLM_LOG, folder_finder(settings), watchdog)
    return Engine(vllm, VllmQueue, vllm.close)


def model_loader(settings: Settings) -> Loader:
    """Loads checkpoints dressed as in training, with today's date in the system turn."""
    at_hand = folder_finder(settings)

    def load(path: Path, weights: str) -> LocalGenerator:
        from ratchet.inference.local import LocalGenerator

        dress = Dress.configured(settings, time.time())
        return LocalGenerator.load(at_hand(path), settings.inference, weights, dress)

    return load


def folder_finder(settings: Settings) -> Callable[[Path], Path]:
    """Where a folder is on this machine.

    One that is not here is fetched from the artifact store: its last part is the artifact's id.
    """
    artifacts = artifact_store(settings)

    def find(path: Path) -> Path:
        is_elsewhere = settings.artifacts.url is not None and not path.is_dir()
        return artifacts.fetch(path.name) if is_elsewhere else path

    return find
