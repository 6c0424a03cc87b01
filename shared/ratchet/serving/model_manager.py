"""ModelManager: the checkpoints in memory, which of them is live, and the client traffic of each.

The live checkpoint is switched in one step, and is served again after a restart. How a model computes is the engine's
concern.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.data.example import Message
from ratchet.errors import ArtifactError, RatchetError
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Decoding
from ratchet.serving import protocol
from ratchet.serving.batcher import Batcher
from ratchet.serving.engine import Loader, Queue, QueueMaker, ServedModel
from ratchet.serving.http_errors import ApiError, BeingUnloaded
from ratchet.serving.protocol import Conditions, Health, Live, Traffic
from ratchet.serving.server_home import ServingState, StateFile
from ratchet.settings.serving import ServingSettings
from ratchet.watchdog import Watchdog

log = logging.getLogger(__name__)
_WARM_UP = (Message(role="user", content="1"),)
WINDOW = 1000
"""Number of last requests over which latency quantiles are computed."""


class TrafficMeter:
    """Requests, errors and latencies of one checkpoint. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latencies_s: deque[float] = deque(maxlen=WINDOW)
        self._requests = self._errors = self._tokens = 0

    def answered(self, latency_s: float, tokens: int) -> None:
        with self._lock:
            self._requests += 1
            self._tokens += tokens
            self._latencies_s.append(latency_s)

    def failed(self) -> None:
        with self._lock:
            self._requests += 1
            self._errors += 1

    def read(self) -> Traffic:
        with self._lock:
            ordered = sorted(self._latencies_s)
            return Traffic(
                requests=self._requests,
                errors=self._errors,
                generated_tokens=self._tokens,
                latency_p50_s=_quantile(ordered, 0.5),
                latency_p95_s=_quantile(ordered, 0.95),
            )


def _quantile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank quantile."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


@dataclass(frozen=True)
class LoadedCheckpoint:
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


class ModelManager:
    """Holds several checkpoints and switches between them in one step. Safe to use from several threads."""

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
        self._make_queue = queue
        self._state = ServingState()
        self._loaded: dict[str, LoadedCheckpoint] = {}
        self._unloading: set[str] = set()  # still in memory, but closed to requests
        self._loading = threading.Lock()
        self._changing = threading.Lock()
        self._problem: str | None = None
        self._started = time.monotonic()

    def restore(self) -> None:
        """Load what was live before a restart. If that fails, start empty and report the reason in ``health``."""
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
            if checkpoint_id in self._unloading:
                self.unload(checkpoint_id)
            present = self._loaded.get(checkpoint_id)
            if present is not None:
                if present.weights == weights:
                    return
                raise ApiError(409, "other_weights", f"{checkpoint_id} is loaded with weights {present.weights[:12]}….")
            if checkpoint_id == self._settings.alias:
                raise ApiError(409, "reserved_name", f"{checkpoint_id} is the name that clients use.")
            if len(self._loaded) >= self._settings.max_loaded:
                known = ", ".join(self._loaded)
                raise ApiError(409, "full", f"{known} are loaded (serving.max_loaded); unload one first.")
            loaded = self._start(checkpoint_id, path, weights)
            with self._changing:
                self._loaded[checkpoint_id] = loaded

    def unload(self, checkpoint_id: str) -> None:
        """Wait for the checkpoint's requests to finish, then free it.

        If they take too long, it accepts no more requests but counts as loaded until another unload succeeds.
        """
        with self._changing:
            if self.live is not None and self.live.checkpoint_id == checkpoint_id:
                raise ApiError(409, "live", f"{checkpoint_id} is live; switch to another first.")
            loaded = self._loaded.get(checkpoint_id)
            if loaded is None:
                return
            self._unloading.add(checkpoint_id)
        if not loaded.batcher.close(2 * self._settings.request_timeout_s):
            raise ApiError(503, "stalled", f"{checkpoint_id} is still computing an answer that has long timed out.")
        loaded.generator.close()
        with self._changing:
            if self._loaded.get(checkpoint_id) is loaded:  # unless two calls unload it at once
                del self._loaded[checkpoint_id]
                self._unloading.discard(checkpoint_id)

    def switch(self, checkpoint_id: str, fencing_token: int, certainty: Certainty | None = None) -> bool:
        """Make a loaded checkpoint live; returns whether another was live before."""
        with self._changing:
            was = self._state.live
            if fencing_token < self._state.highest_fencing_token:
                raise ApiError(
                    409,
                    "stale_token",
                    f"fencing token {fencing_token} is lower than {self._state.highest_fencing_token}: "
                    "another deployer has taken over.",
                )
            loaded = self.named(checkpoint_id)
            live = Live(
                checkpoint_id=checkpoint_id, weights=loaded.weights, fencing_token=fencing_token, certainty=certainty
            )
            state = ServingState(highest_fencing_token=fencing_token, live=live, path=str(loaded.path.resolve()))
            self._state_file.write(state)
            self._state = state
            self._problem = None
            return was is None or was.checkpoint_id != checkpoint_id

    def certainty(self, loaded: LoadedCheckpoint) -> Certainty | None:
        """The calibration deployed with a checkpoint; None unless it is the live one."""
        live = self._state.live
        return live.certainty if live is not None and live.checkpoint_id == loaded.checkpoint_id else None

    @property
    def live(self) -> LoadedCheckpoint | None:
        live = self._state.live
        return self._loaded.get(live.checkpoint_id) if live else None

    def resolve(self, model: str) -> LoadedCheckpoint:
        """The checkpoint for a model name: the live one for the alias, otherwise the one with that id."""
        if model != self._settings.alias:
            return self.named(model)
        live = self.live
        if live is None:
            raise ApiError(503, "nothing_live", self._problem or "no checkpoint is live yet.", retry_after_s=5)
        return live

    def peek(self, model: str) -> LoadedCheckpoint | None:
        """As ``resolve``, but None in place of an error."""
        if model == self._settings.alias:
            return self.live
        return None if model in self._unloading else self._loaded.get(model)

    def named(self, checkpoint_id: str) -> LoadedCheckpoint:
        if checkpoint_id in self._unloading:
            raise BeingUnloaded(checkpoint_id)
        loaded = self._loaded.get(checkpoint_id)
        if loaded is None:
            known = ", ".join(self.names())
            raise ApiError(404, "model_not_found", f"no model {checkpoint_id!r}. Known: {known}.", param="model")
        return loaded

    def names(self) -> list[str]:
        """Model names that clients may use, the alias first."""
        return [self._settings.alias, *(name for name in tuple(self._loaded) if name not in self._unloading)]

    def health(self) -> Health:
        present = tuple(self._loaded.values())
        return Health(
            live=self._state.live if self.live else None,
            loaded={loaded.checkpoint_id: loaded.weights for loaded in present},
            conditions=present[0].conditions if present else None,
            waiting=self.waiting,
            uptime_s=time.monotonic() - self._started,
            problem=self.watchdog.problem or self._problem,
            highest_fencing_token=self._state.highest_fencing_token,
        )

    @property
    def waiting(self) -> int:
        return sum(loaded.batcher.waiting for loaded in tuple(self._loaded.values()))

    @property
    def in_flight(self) -> int:
        return sum(loaded.batcher.in_flight for loaded in tuple(self._loaded.values()))

    def close(self) -> None:
        """Answer the queued requests, but wait at most ``serving.drain_s``."""
        ends_at = time.monotonic() + self._settings.drain_s
        for loaded in tuple(self._loaded.values()):
            if not loaded.batcher.close(max(0.0, ends_at - time.monotonic())):
                log.error("%s is still computing an answer, and is not waited for", loaded.checkpoint_id)

    def _start(self, checkpoint_id: str, path: Path, weights: str) -> LoadedCheckpoint:
        try:
            generator = self._loader(path, weights)
            generator.generate([_WARM_UP], Decoding(max_new_tokens=1))
        except ArtifactError as error:
            raise ApiError(422, protocol.BROKEN_CHECKPOINT, str(error)) from error
        batcher = self._make_queue(
            checkpoint_id,
            generator,
            max_batch=self._settings.max_batch,
            max_queue=self._settings.max_queue,
            limit_s=self._settings.request_timeout_s,
            watchdog=self.watchdog,
        )
        return LoadedCheckpoint(checkpoint_id, path, generator, batcher)
