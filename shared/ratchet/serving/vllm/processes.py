"""vLLM processes of our own: one for each checkpoint with whole weights, one for a base and all its adapters.

The process of a base stays when its adapters have left: the next one will want it.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.bus.ports import free_port
from ratchet.errors import ServingError
from ratchet.parent import end_with_parent
from ratchet.serving.vllm.api import VllmApi
from ratchet.serving.vllm.folder import ServedFolder
from ratchet.serving.vllm.seats import AdapterSeat, Seat
from ratchet.settings.serving import ServingSettings

_STOP_S = 30.0
_LOOK_S = 0.05
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_RUNTIME_LORA = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}


@dataclass
class ProcessSeat:
    """Whole weights in a process of their own."""

    api: VllmApi
    model: str
    process: subprocess.Popen[bytes]

    def is_taken(self) -> bool:
        return self.process.poll() is None

    def leave(self) -> None:
        self.api.close()
        _end(self.process)


@dataclass
class ProcessSeats:
    """Starts ``serving.vllm_command`` for every checkpoint. ``log`` is the file of what the processes print."""

    settings: ServingSettings
    dtype: str
    log: Path
    _bases: dict[Path, ProcessSeat] = field(default_factory=dict)
    _seats: list[ProcessSeat] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, folder: ServedFolder) -> Seat:
        if folder.base is None:
            return self._started(folder.path, folder.name, {})
        with self._lock:
            base = self._bases.get(folder.base)
            if base is None or not base.is_taken():
                base = self._bases[folder.base] = self._started(folder.base, "base", _RUNTIME_LORA)
        base.api.load_adapter(folder.name, str(folder.path))
        return AdapterSeat(base.api, folder.name)

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        return tuple(seat.process for seat in self._seats if seat.is_taken())

    def close(self) -> None:
        for seat in self._seats:
            seat.leave()

    def _started(self, path: Path, name: str, environment: Mapping[str, str]) -> ProcessSeat:
        """A process that answers. Raises ServingError, quoting its log, where it ends or takes too long."""
        port = free_port()
        command = self.settings.vllm_command.format(
            path=shlex.quote(str(path)), name=shlex.quote(name), port=port, dtype=_DTYPES[self.dtype]
        )
        extra = self.settings.vllm_adapter_options if environment else ""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                shlex.split(f"{command} {extra}"),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        seat = ProcessSeat(VllmApi(f"http://127.0.0.1:{port}", self.settings.request_timeout_s), name, process)
        self._seats = [*(other for other in self._seats if other.is_taken()), seat]
        self._wait(seat, command)
        return seat

    def _wait(self, seat: ProcessSeat, command: str) -> None:
        deadline = time.monotonic() + self.settings.vllm_start_s
        while not seat.api.is_healthy():
            code = seat.process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
                continue
            seat.leave()
            why = "did not answer in time" if code is None else f"ended with code {code}"
            raise ServingError(f"`{command}` {why}: {self._said()}")

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 1_000))
            return log.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
