"""The checkpoints in memory, and which of them is live."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.data.example import Message
from ratchet.errors import ArtifactError, RatchetError
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Decoding
from ratchet.serving import wire
from ratchet.serving.batcher import Batcher
from ratchet.serving.model import Loader, Queue, QueueMaker, ServedModel
from ratchet.serving.protocol import Conditions, Health, Live
from ratchet.serving.refusal import Refusal, Retired
from ratchet.serving.state import ServingState, StateFile
from ratchet.serving.traffic import TrafficMeter
from ratchet.settings.serving import ServingSettings
from ratchet.watchdog import Watchdog

log = logging.getLogger(__name__)

_WARM_UP = (Message(role="user", content="1"),)


@dataclass(frozen=True)
class Loaded:
    """One checkpoint in memory."""

    checkpoint_id: str
    path: Path
    generator: ServedModel
    batcher: Queue
    traffic: TrafficMeter = field(default_factory=TrafficMeter)

    @property
    def weights(self) -> str:
        return self.generator.weights

    @property
    def conditions(self) -> Conditions:
        hardware = self.generator.hardware
        return Conditions(engine=hardware.engine, dtype=hardware.dtype, gpu_class=hardware.gpu_class)

    @property
    def fingerprint(self) -> str:
        return f"{self.checkpoint_id}-{self.weights[:12]}"


class Fleet:
    """Loads beside, switches in one step, unloads behind. Safe to use from several threads."""

    def __init__(
        self,
        settings: ServingSettings,
        state_file: StateFile,
        loader: Loader,
        queue: QueueMaker = Batcher,
        watchdog: Watchdog | None = None,
    ):
        self.watchdog = watchdog or Watchdog()
        self._settings = settings
        self._state_file = state_file
        self._loader = loader
        self._queue = queue
        self._state = ServingState()
        self._loaded: dict[str, Loaded] = {}
        self._leaving: set[str] = set()  # loaded, but no longer to be asked
        self._loading = threading.Lock()
        self._changing = threading.Lock()
        self._problem: str | None = None
        self._started = time.monotonic()

    def restore(self) -> None:
        """Serve what was live before a restart. Where that fails the fleet starts empty, and health says why."""
        self._state = self._state_file.read()
        live = self._state.live
        if live is None or self._state.path is None:
            return
        try:
            self.load(live.checkpoint_id, Path(self._state.path), live.weights)
        except RatchetError as error:
            self._problem = f"{live.checkpoint_id} was live and cannot be loaded again: {error}"
            log.error("%s", self._problem)

    def load(self, checkpoint_id: str, path: Path, weights: str) -> None:
        with self._loading:
            if checkpoint_id in self._leaving:
                self.unload(checkpoint_id)
            present = self._loaded.get(checkpoint_id)
            if present is not None:
                if present.weights == weights:
                    return
                raise Refusal(409, "other_weights", f"{checkpoint_id} is loaded with weights {present.weights[:12]}….")
            if checkpoint_id == self._settings.alias:
                raise Refusal(409, "reserved_name", f"{checkpoint_id} is the name that clients use.")
            if len(self._loaded) >= self._settings.max_loaded:
                known = ", ".join(self._loaded)
                raise Refusal(409, "full", f"{known} are loaded (serving.max_loaded); unload one first.")
            loaded = self._bring_up(checkpoint_id, path, weights)
            with self._changing:
                self._loaded[checkpoint_id] = loaded

    def unload(self, checkpoint_id: str) -> None:
        """Waits until the checkpoint's requests are answered, which they are in time or not at all.

        Where that fails it takes no more requests, but counts as loaded until a further unload succeeds.
        """
        with self._changing:
            if self.live is not None and self.live.checkpoint_id == checkpoint_id:
                raise Refusal(409, "live", f"{checkpoint_id} is live; switch to another first.")
            loaded = self._loaded.get(checkpoint_id)
            if loaded is None:
                return
            self._leaving.add(checkpoint_id)
        if not loaded.batcher.close(2 * self._settings.request_timeout_s):
            raise Refusal(503, "stalled", f"{checkpoint_id} still computes an answer that is long overdue.")
        loaded.generator.close()
        with self._changing:
            if self._loaded.get(checkpoint_id) is loaded:  # not so where it was unloaded from two sides
                del self._loaded[checkpoint_id]
                self._leaving.discard(checkpoint_id)

    def switch(self, checkpoint_id: str, fencing_token: int, certainty: Certainty | None = None) -> bool:
        """Whether another checkpoint was live before."""
        with self._changing:
            was = self._state.live
            if fencing_token < self._state.highest_token:
                raise Refusal(
                    409,
                    "stale_token",
                    f"fencing token {fencing_token} is lower than {self._state.highest_token}: "
                    "another deployer has taken over.",
                )
            loaded = self.named(checkpoint_id)
            live = Live(
                checkpoint_id=checkpoint_id, weights=loaded.weights, fencing_token=fencing_token, certainty=certainty
            )
            state = ServingState(highest_token=fencing_token, live=live, path=str(loaded.path.resolve()))
            self._state_file.write(state)
            self._state = state
            self._problem = None
            return was is None or was.checkpoint_id != checkpoint_id

    def certainty(self, loaded: Loaded) -> Certainty | None:
        """How sure answers are stated to be: known of the live checkpoint alone."""
        live = self._state.live
        return live.certainty if live is not None and live.checkpoint_id == loaded.checkpoint_id else None

    @property
    def live(self) -> Loaded | None:
        live = self._state.live
        return self._loaded.get(live.checkpoint_id) if live else None

    def resolve(self, model: str) -> Loaded:
        """What answers under a model name: the live checkpoint under the alias, or one by its id."""
        if model != self._settings.alias:
            return self.named(model)
        live = self.live
        if live is None:
            raise Refusal(503, "nothing_live", self._problem or "no checkpoint is live yet.", retry_after_s=5)
        return live

    def peek(self, model: str) -> Loaded | None:
        """As resolve, but None where nothing answers."""
        if model == self._settings.alias:
            return self.live
        return None if model in self._leaving else self._loaded.get(model)

    def named(self, checkpoint_id: str) -> Loaded:
        if checkpoint_id in self._leaving:
            raise Retired(checkpoint_id)
        loaded = self._loaded.get(checkpoint_id)
        if loaded is None:
            known = ", ".join(self.names())
            raise Refusal(404, "model_not_found", f"no model {checkpoint_id!r}. Known: {known}.", param="model")
        return loaded

    def names(self) -> list[str]:
        """What clients may ask for, the alias first."""
        return [self._settings.alias, *(name for name in tuple(self._loaded) if name not in self._leaving)]

    def health(self) -> Health:
        present = tuple(self._loaded.values())
        return Health(
            live=self._state.live if self.live else None,
            loaded={loaded.checkpoint_id: loaded.weights for loaded in present},
            conditions=present[0].conditions if present else None,
            waiting=self.waiting,
            uptime_s=time.monotonic() - self._started,
            problem=self.watchdog.problem or self._problem,
            highest_token=self._state.highest_token,
        )

    @property
    def waiting(self) -> int:
        return sum(loaded.batcher.waiting for loaded in tuple(self._loaded.values()))

    @property
    def under_way(self) -> int:
        return sum(loaded.batcher.under_way for loaded in tuple(self._loaded.values()))

    def close(self) -> None:
        """Answer what is queued, and end; what takes longer than ``serving.drain_s`` is left behind."""
        ends_at = time.monotonic() + self._settings.drain_s
        for loaded in tuple(self._loaded.values()):
            if not loaded.batcher.close(max(0.0, ends_at - time.monotonic())):
                log.error("%s still computes an answer, and is left behind", loaded.checkpoint_id)

    def _bring_up(self, checkpoint_id: str, path: Path, weights: str) -> Loaded:
        try:
            generator = self._loader(path, weights)
            generator.generate([_WARM_UP], Decoding(max_new_tokens=1))
        except ArtifactError as error:
            raise Refusal(422, wire.BROKEN_CHECKPOINT, str(error)) from error
        batcher = self._queue(
            checkpoint_id,
            generator,
            max_batch=self._settings.max_batch,
            max_queue=self._settings.max_queue,
            limit_s=self._settings.request_timeout_s,
            watchdog=self.watchdog,
        )
        return Loaded(checkpoint_id, path, generator, batcher)
