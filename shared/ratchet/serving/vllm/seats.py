"""Where checkpoints sit in vLLM. A seat is one checkpoint on one vLLM server, under one name."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ratchet.errors import TransientError
from ratchet.serving.refusal import Refusal
from ratchet.serving.vllm.api import VllmApi
from ratchet.serving.vllm.folder import ServedFolder


class Seat(Protocol):
    """A checkpoint in its place."""

    @property
    def api(self) -> VllmApi: ...

    @property
    def model(self) -> str:
        """What requests have to name."""
        ...

    def is_taken(self) -> bool:
        """Whether these very weights still answer here."""
        ...

    def leave(self) -> None:
        """Make room."""
        ...


class Seats(Protocol):
    """Gives out seats."""

    def take(self, folder: ServedFolder) -> Seat:
        """Bring a checkpoint into vLLM. Raises a Refusal or TransientError."""
        ...

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """Those of our own that run."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class AdapterSeat:
    """A LoRA adapter beside others on one server, under a name of its own."""

    api: VllmApi
    model: str

    def is_taken(self) -> bool:
        try:
            return self.model in self.api.models()
        except TransientError:
            return False

    def leave(self) -> None:
        self.api.unload_adapter(self.model)


@dataclass
class StandingSeat:
    """Whole weights in a server that somebody else runs."""

    api: VllmApi
    model: str
    weights: str
    free: threading.Lock
    has_left: bool = False

    def is_taken(self) -> bool:
        try:
            return not self.has_left and self.api.weight_version() == self.weights
        except TransientError:
            return False

    def leave(self) -> None:
        """The weights stay until others come; whoever comes back finds them still there.

        A second time changes nothing: while vLLM is away, no other seat is found.
        """
        if not self.has_left:
            self.has_left = True
            self.free.release()


@dataclass
class StandingSeats:
    """Servers that run already: whole weights are exchanged in place, one checkpoint a server, blue beside green.

    They need VLLM_SERVER_DEV_MODE=1 for that, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 with --enable-lora for adapters.
    """

    apis: Sequence[VllmApi]
    _locks: list[threading.Lock] = field(init=False)

    def __post_init__(self) -> None:
        self._locks = [threading.Lock() for _ in self.apis]

    def take(self, folder: ServedFolder) -> Seat:
        if folder.base is not None:
            api = self.apis[0]
            api.load_adapter(folder.name, str(folder.path))
            return AdapterSeat(api, folder.name)
        api, lock = self._free(folder.weights)
        try:
            if api.weight_version() != folder.weights:
                api.reload(str(folder.path), folder.weights)
            return StandingSeat(api, _own_name(api), folder.weights, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        return ()

    def close(self) -> None:
        for api in self.apis:
            api.close()

    def _free(self, weights: str) -> tuple[VllmApi, threading.Lock]:
        """A free server, one that holds these weights already if there is one."""
        urls = ", ".join(api.url for api in self.apis)
        free = [pair for pair in zip(self.apis, self._locks, strict=True) if not pair[1].locked()]
        if not free:
            raise Refusal(409, "full", f"{urls} each hold a checkpoint (serving.vllm_urls); unload one first.")
        awake = [pair for pair in free if pair[0].is_healthy()]
        for api, lock in sorted(awake, key=lambda pair: pair[0].weight_version() != weights):
            if lock.acquire(blocking=False):
                return api, lock
        raise TransientError(f"of {urls} (serving.vllm_urls) none is both healthy and free")


def _own_name(api: VllmApi) -> str:
    names = [name for name, parent in api.models().items() if parent is None]
    if not names:
        raise TransientError(f"vLLM at {api.url} serves no model")
    return names[0]
