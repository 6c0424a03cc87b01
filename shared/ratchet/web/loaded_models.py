"""Which models the inference server holds in memory, and how the page has further ones loaded for a while.

The deployer keeps the live model, the one before it and a challenger there. The page loads others under names of its
own, so that it never takes away what the deployer uses, and the deployer unloads the page's models without a thought.
Two of the ``serving.max_loaded`` slots are always the deployer's: without one it would refuse a checkpoint.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from pydantic import ValidationError

from ratchet.errors import PreconditionFailed, RatchetError, ServingError, TransientError
from ratchet.home import artifacts
from ratchet.ledger.tables import CheckpointRow
from ratchet.proxies import DIRECT
from ratchet.serving.server_home import announced_url
from ratchet.settings import Settings

if TYPE_CHECKING:
    import httpx

    from ratchet.serving.protocol import Health

PREFIX = "playground-"
"""Begins the names of models that the page has loaded, before the checkpoint's id."""
DEPLOYER_SLOTS = 2
"""Of the server's slots, those that the deployer needs at once: the live model and the one that it brings up."""
CONNECT_S = 5.0
STATE_S = 10.0
SLOT_WAIT_S = 120.0
"""How long an answer waits until a model that is in use can be unloaded for it."""
POLL_S = 0.5
_CHECKPOINT_ID = re.compile(r"c(\d{4,9})-[0-9a-f]{6}")


@dataclass(frozen=True)
class AskedCheckpoint:
    """A checkpoint to ask, as the ledger has it."""

    id: str
    ordinal: int
    artifact: str
    weights: str
    state: str
    reason: str

    @classmethod
    def of(cls, row: CheckpointRow) -> AskedCheckpoint:
        return cls(row.id, row.ordinal, row.artifact, row.weights, row.state, row.reason)

    @property
    def label(self) -> str:
        return f"#{self.ordinal}"

    @property
    def own_name(self) -> str:
        return PREFIX + self.id


@dataclass
class ModelLease:
    """An answer's use of a model, which keeps it loaded. ``name`` is what the server calls it, once it is loaded."""

    checkpoint: AskedCheckpoint
    name: str | None = None
    is_counted: bool = False


class _NoSlot(RatchetError):
    """All slots are taken by models that may not be unloaded."""


def server_url(settings: Settings) -> str:
    """The address of the inference server: the configured one, or the one last started in this home."""
    return settings.serving.url or announced_url(settings.serving_home) or settings.serving.base_url


def connection(url: str, read_s: float | None) -> httpx.AsyncClient:
    """A client of the inference server. Between two pieces of an answer it waits ``read_s``."""
    import httpx

    timeout = httpx.Timeout(read_s, connect=CONNECT_S)
    # Reading the certificates takes 80 ms.
    return httpx.AsyncClient(base_url=url, mounts=DIRECT, timeout=timeout, verify=url.startswith("https:"))


def unreachable(url: str) -> TransientError:
    """The error of a server that cannot be reached."""
    return TransientError(
        f"no model answers at {url}: the run is starting, or it is stopped (`ratchet run` starts it). Nothing is lost; "
        "ask again in a moment."
    )


async def read_health(settings: Settings) -> Health:
    """What the server holds. Raises TransientError where none answers, ServingError for another program there."""
    import httpx

    from ratchet.serving.protocol import Health

    url = server_url(settings)
    try:
        async with connection(url, STATE_S) as http:
            response = await http.get("/health")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(url) from error
    try:
        return Health.model_validate_json(response.content)  # also of a 503, which names the problem
    except ValidationError as error:
        raise ServingError(f"what answers at {url} is not Ratchet's inference server.") from error


class LoadedModels:
    """Loads the models that are asked, and unloads those of its own that no answer uses. For one event loop."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._in_use: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._threads: anyio.CapacityLimiter | None = None

    async def prepare(self, lease: ModelLease) -> AsyncIterator[str]:
        """Have the lease's checkpoint loaded; yields what is being waited for. ``release`` the lease in any case.

        It may be called again for a lease whose model has been unloaded meanwhile.
        Raises PreconditionFailed, with what may be asked instead, where it cannot be loaded.
        """
        checkpoint = lease.checkpoint
        if not lease.is_counted:
            lease.is_counted = True
            self._in_use[checkpoint.own_name] += 1
        deadline = time.monotonic() + SLOT_WAIT_S
        while True:
            health = await read_health(self._settings)
            found = next((name for name in (checkpoint.id, checkpoint.own_name) if name in health.loaded), None)
            if found is not None:
                lease.name = found
                return
            self._require_loadable(checkpoint, health)
            try:
                async for note in self._loading(checkpoint):
                    yield note
            except _NoSlot as error:
                if time.monotonic() > deadline:
                    raise PreconditionFailed(f"{checkpoint.label} is not loaded: {error}") from error
                yield f"waiting until there is a place for {checkpoint.label}; {error}"
                await asyncio.sleep(POLL_S)

    def release(self, lease: ModelLease) -> None:
        """The answer is complete or given up: its model may be unloaded."""
        if lease.is_counted:
            lease.is_counted = False
            self._in_use[lease.checkpoint.own_name] -= 1

    async def _loading(self, checkpoint: AskedCheckpoint) -> AsyncIterator[str]:
        """Wait for the load. Answers that need the same model share it, and it goes on where nobody waits any more."""
        task = self._loads.get(checkpoint.own_name)
        if task is None:
            task = self._loads[checkpoint.own_name] = asyncio.create_task(self._load(checkpoint))
            task.add_done_callback(lambda done: self._loaded(checkpoint.own_name, done))
        started = time.monotonic()
        while not task.done():
            passed = time.monotonic() - started
            yield f"loading {checkpoint.label} …" + (f" {passed:.0f} s" if passed >= 2 else "")
            await asyncio.wait({task}, timeout=1.0)
        task.result()

    def _loaded(self, name: str, task: asyncio.Task[None]) -> None:
        self._loads.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits any more

    async def _load(self, checkpoint: AskedCheckpoint) -> None:
        async with self._changing:
            health = await read_health(self._settings)
            if checkpoint.id in health.loaded or checkpoint.own_name in health.loaded:
                return
            surplus = self._to_unload(health)
            try:
                await self._in_thread(partial(self._replace, checkpoint, surplus))
            except RatchetError as error:
                raise PreconditionFailed(
                    f"{checkpoint.label} is not loaded, and it could not be loaded from here: {error} {offer(health)}"
                ) from error

    def _to_unload(self, health: Health) -> list[str]:
        """Which of the page's own models are unloaded for one more. Raises _NoSlot where too few are idle."""
        ours = [name for name in health.loaded if name.startswith(PREFIX)]
        most = self._settings.serving.max_loaded
        surplus = max(len(ours) + 1 - (most - DEPLOYER_SLOTS), len(health.loaded) + 1 - most)
        idle = [name for name in ours if not self._in_use[name]]
        if surplus > len(idle):
            names = ", ".join(dict.fromkeys(map(shown, health.loaded)))
            raise _NoSlot(f"{names} are in memory, and serving.max_loaded = {most} allows no more.")
        return idle[: max(0, surplus)]

    def _replace(self, checkpoint: AskedCheckpoint, surplus: list[str]) -> None:
        from ratchet.serving.client import ServingClient

        with ServingClient.from_settings(self._settings.serving, self._settings.serving_home) as server:
            server.ping()
            path = artifacts(self._settings).fetch(checkpoint.artifact)
            for name in surplus:
                server.unload(name)
            server.load(checkpoint.own_name, str(path), checkpoint.weights)

    def _require_loadable(self, checkpoint: AskedCheckpoint, health: Health) -> None:
        serving = self._settings.serving
        if checkpoint.state != "saved":
            reason = f" ({checkpoint.reason})" if checkpoint.reason else ""
            why = f"{checkpoint.label} is {checkpoint.state}{reason}, and not loaded."
        elif serving.engine == "vllm":
            why = (
                f"{checkpoint.label} is not loaded, and behind vLLM each model takes a fixed share of the card's "
                "memory, which the deployer needs for the next one."
            )
        elif serving.max_loaded <= DEPLOYER_SLOTS:
            why = (
                f"{checkpoint.label} is not loaded, and serving.max_loaded = {serving.max_loaded} leaves no place "
                "beside the models of the deployer; 3 is the default."
            )
        else:
            return
        raise PreconditionFailed(f"{why} {offer(health)}")

    async def _in_thread(self, call: partial[None]) -> None:
        # Threads of their own: a load takes minutes, and the others render pages.
        self._threads = self._threads or anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(call, limiter=self._threads)


def shown(name: str) -> str:
    """A model's name on the server as people know it: ``#7``."""
    name = name.removeprefix(PREFIX)
    found = _CHECKPOINT_ID.fullmatch(name)
    return f"#{int(found[1])}" if found else name


def offer(health: Health) -> str:
    """What may be asked now, in words."""
    names = dict.fromkeys(map(shown, health.loaded))
    return f"Loaded now: {', '.join(names)}." if names else "Nothing is loaded yet."
