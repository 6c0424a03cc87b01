"""Serving through vLLM: checkpoints that vLLM processes run, and clients' requests to them.

VllmEngine loads checkpoints and restarts replicas that have exited, VllmModel is one loaded checkpoint, and VllmQueue
passes clients' requests to it. How a checkpoint is run by vLLM is in ratchet.inference.vllm_generator.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ratchet.errors import RatchetError, TransientError
from ratchet.inference.generator import Generation
from ratchet.inference.model_loading import pick_hardware
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.sampling import Answer
from ratchet.inference.vllm_generator import VllmGenerator
from ratchet.inference.vllm_replica import START_TIMEOUT_S, VllmReplicas
from ratchet.serving.http_errors import ApiError, BeingUnloaded
from ratchet.serving.pending import PendingRequest, PendingScore
from ratchet.settings import Settings
from ratchet.watchdog import Watch, Watchdog, WatchedThread

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0
"""How often replicas are checked, and restarted if they have exited."""

REQUESTS_PER_START = 10
"""Upper bound of the requests that a restart makes to vLLM, each with its own timeout, after starting the process."""

MERGED = "merged"
"""Folder beside the log, with merged weights of the loaded checkpoints of adapters."""

STOP_TIMEOUT_S = 10.0

RETRY_AFTER_S = 5
"""The Retry-After header for clients while vLLM is unreachable."""


class VllmEngine:
    """A Loader; ``find_folder`` returns the folder of a checkpoint on this machine.

    A replica that has exited is restarted within seconds. Until then its requests are answered with 503.
    """

    def __init__(
        self,
        settings: Settings,
        log_file: Path,
        find_folder: Callable[[Path], Path] = Path,
        watchdog: Watchdog | None = None,
    ):
        self.settings = settings
        self._find_folder = find_folder
        self._hardware = pick_hardware(settings.inference)
        serving = settings.serving
        self._replicas = VllmReplicas(
            serving.vllm_command, self._hardware.dtype, log_file, serving.request_timeout_s, serving.max_batch
        )
        self._loaded: list[VllmModel] = []
        self._merged_folder = log_file.parent / MERGED
        shutil.rmtree(self._merged_folder, ignore_errors=True)  # of a server that was killed
        self._stopping = threading.Event()
        limit_s = START_TIMEOUT_S + REQUESTS_PER_START * settings.serving.request_timeout_s
        self._thread = WatchedThread(
            self._restart_dead, watchdog or Watchdog(), self._stopping, name="vllm-restart", limit_s=limit_s
        )
        self._thread.start()

    def __call__(self, path: Path, weights: str) -> VllmModel:
        """Load a folder. Raises BrokenCheckpoint, ServingError or TransientError."""
        model = VllmModel.load(
            self._find_folder(path),
            weights,
            PromptFormat.configured(self.settings, time.time()),
            self._replicas,
            self._hardware,
            self._merged_folder,
        )
        self._loaded = [*(other for other in self._loaded if not other.is_closed), model]
        return model

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The running vLLM processes."""
        return self._replicas.processes

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT_S)
        self._replicas.close()

    def _restart_dead(self) -> None:
        while not self._stopping.wait(CHECK_INTERVAL_S):
            self._thread.watch.beat()
            for model in self._loaded:
                self._thread.watch.beat()
                try:
                    model.restart_if_dead()
                except RatchetError as error:
                    log.error("%s", error)


class VllmModel(VllmGenerator):
    """One loaded checkpoint, as a ServedModel."""

    def __init__(self, *arguments: Any, **more: Any):
        self._lock = threading.Lock()
        self.is_closed = False
        super().__init__(*arguments, **more)

    @property
    def constrains_answers(self) -> bool:
        return True

    def answer(self, pending: PendingRequest | PendingScore) -> None:
        """Answer a client's request, token by token if it is streamed, or score a text."""
        if isinstance(pending, PendingScore):
            replica = self._replica
            pending.settle(replica.api.score_text(replica.model, pending.token_ids, pending.top))
            return
        generation = self._stream(pending) if pending.is_streamed else self.complete(pending.prompt)
        if generation is not None:
            pending.settle(generation)

    def restart_if_dead(self) -> None:
        with self._lock:
            if self.is_closed or self._replica.is_running:
                return
            log.warning("the vLLM process of %s has exited; starting another", self._path)
            self._replica.stop()
            self._replica = self._replicas.start(self._path, self.weights)

    def close(self) -> None:
        with self._lock:
            self.is_closed = True
            super().close()

    def _stream(self, pending: PendingRequest) -> Generation | None:
        """The answer, or None once its client has stopped waiting."""
        started, replica, prompt = time.perf_counter(), self._replica, pending.prompt
        answer, finish_reason = Answer(), None
        for delta in replica.api.stream(replica.model, prompt, self._end_ids):
            # One token at a time: the client's stream counts them, and vLLM may send several in one delta.
            for place, (token_id, logprob) in enumerate(zip(delta.token_ids, delta.logprobs, strict=True)):
                answer.token_ids.append(token_id)
                answer.logprobs.append(logprob)
                answer.top_logprobs += delta.top[place : place + 1]
                if pending.on_token(answer):
                    return None
            finish_reason = delta.finish_reason or finish_reason
        return self.generation(prompt, answer, finish_reason, started)


class VllmQueue:
    """A Queue for one checkpoint. vLLM does the batching.

    Up to ``max_batch`` requests are in flight; further ones wait, up to ``max_queue``.
    """

    def __init__(
        self,
        checkpoint_id: str,
        generator: VllmModel,
        *,
        max_batch: int,
        max_queue: int,
        limit_s: float,
        watchdog: Watchdog,
    ):
        self._checkpoint_id = checkpoint_id
        self._generator = generator
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._pool = ThreadPoolExecutor(max_batch, f"vllm-{checkpoint_id}")
        self._change = threading.Condition()
        self._accepted = 0
        self._closing = False
        self._watchdog = watchdog
        # Each request to vLLM has its own timeout, so only a hung thread exceeds twice that time.
        self._watch = Watch(f"the queue of {checkpoint_id} to vLLM", 2 * limit_s)
        self._watch.rest()
        watchdog.add(self._watch)

    @property
    def waiting(self) -> int:
        return max(0, self._accepted - self._max_batch)

    @property
    def in_flight(self) -> int:
        return min(self._accepted, self._max_batch)

    def submit(self, pending: PendingRequest | PendingScore) -> None:
        with self._change:
            if self._closing:
                raise BeingUnloaded(self._checkpoint_id)
            if self.waiting >= self._max_queue:
                raise ApiError(503, "overloaded", f"{self._max_queue} requests are waiting (serving.max_queue).", 1)
            if self._accepted == 0:
                self._watch.beat()
            self._accepted += 1
        self._pool.submit(self._answer, pending)

    def close(self, timeout_s: float) -> bool:
        with self._change:
            self._closing = True
            has_ended = self._change.wait_for(lambda: self._accepted == 0, timeout_s)
        self._pool.shutdown(wait=False)
        if has_ended:
            self._watchdog.remove(self._watch)
        return has_ended

    def _answer(self, pending: PendingRequest | PendingScore) -> None:
        try:
            if pending.is_over:
                pending.expire()
            else:
                self._generator.answer(pending)
        except TransientError as error:
            pending.fail(ApiError(503, "engine_unavailable", str(error), RETRY_AFTER_S))
        except Exception as error:  # passed on to the request, so that the pool's thread continues
            log.exception("a request to %s failed", self._checkpoint_id)
            pending.fail(error)
        finally:
            with self._change:
                self._accepted -= 1
                self._watch.beat()
                if self._accepted == 0:
                    self._watch.rest()
                    self._change.notify_all()
