"""The router's engine: loads checkpoints into vLLM, and keeps them there."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ratchet.errors import RatchetError
from ratchet.inference.dress import Dress
from ratchet.inference.hardware import pick_hardware
from ratchet.serving.vllm.api import VllmApi
from ratchet.serving.vllm.folder import verified
from ratchet.serving.vllm.generator import VllmGenerator
from ratchet.serving.vllm.processes import ProcessSeats
from ratchet.serving.vllm.seats import Seats, StandingSeats
from ratchet.settings import Settings
from ratchet.watchdog import Watchdog, WatchedThread

log = logging.getLogger(__name__)

TEND_S = 2.0
CALLS = 10
"""Bringing a checkpoint back takes fewer calls to vLLM than that, beside the start of a process."""

END_S = 10.0


class VllmEngine:
    """A Loader; ``at_hand`` says where a folder is on this machine.

    What vLLM has lost is brought back within seconds; its requests are answered 503 until then.
    """

    def __init__(
        self,
        settings: Settings,
        log_file: Path,
        at_hand: Callable[[Path], Path] = Path,
        watchdog: Watchdog | None = None,
    ):
        self.settings = settings
        self._at_hand = at_hand
        self._hardware = pick_hardware(settings.inference)
        self._seats = _seats(settings, self._hardware.dtype, log_file)
        self._loaded: list[VllmGenerator] = []
        self._over = threading.Event()
        limit_s = settings.serving.vllm_start_s + CALLS * settings.serving.request_timeout_s
        self._thread = WatchedThread(self._tend, watchdog or Watchdog(), self._over, name="tend-vllm", limit_s=limit_s)
        self._thread.start()

    def __call__(self, path: Path, weights: str) -> VllmGenerator:
        """Load a folder. Raises BrokenCheckpoint, a Refusal or TransientError."""
        dress = Dress.configured(self.settings, time.time())
        folder = verified(self._at_hand(path), weights, self.settings.serving.vllm_adapter_base)
        generator = VllmGenerator(folder, self._seats, dress, self._hardware)
        self._loaded = [*(other for other in self._loaded if not other.is_closed), generator]
        return generator

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The vLLM processes of our own that run."""
        return self._seats.processes

    def close(self) -> None:
        self._over.set()
        self._thread.join(END_S)
        self._seats.close()

    def _tend(self) -> None:
        while not self._over.wait(TEND_S):
            self._thread.watch.beat()
            for generator in self._loaded:
                self._thread.watch.beat()
                try:
                    generator.tend()
                except RatchetError as error:
                    log.error("%s", error)


def _seats(settings: Settings, dtype: str, log_file: Path) -> Seats:
    """Servers that run already, where some are named; else processes of our own."""
    serving = settings.serving
    if not serving.vllm_urls:
        return ProcessSeats(serving, dtype, log_file)
    return StandingSeats([VllmApi(url, serving.request_timeout_s, serving.max_batch) for url in serving.vllm_urls])
