"""One ``vllm serve`` process per loaded checkpoint: the check of its files, its start, its health and its end.

vLLM reads whole weights. For a checkpoint of adapters a folder with the merged weights, those that were judged, is
written first, and removed when it is unloaded. (Exchanging weights inside a running vLLM, or LoRA adapters on a shared
base, are not used: if a step fails halfway, both serve something other than the judged files.)
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.disk import disk_errors, require_room
from ratchet.errors import BrokenCheckpoint, ServingError
from ratchet.inference.adapter_folder import is_adapter, whole_base
from ratchet.inference.model_folder import check_folder, weight_files, weights_digest
from ratchet.inference.vllm_api import VllmApi
from ratchet.ports import free_port
from ratchet.processes.managed_process import end_with_parent

START_TIMEOUT_S = 900.0
"""Reading a large model from a slow disk and compiling its kernels takes minutes, but not a quarter of an hour."""

STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def checked_folder(path: Path, weights: str, scratch: Path) -> Path:
    """The folder for vLLM to read: ``path``, or one below ``scratch`` with the merged weights of its adapters.

    Raises BrokenCheckpoint for a missing file, a wrong digest, or weights that are not finite: vLLM's engine exits on
    weights that it cannot load, so they are checked before it starts. Raises TransientError for a full disk.
    """
    check_folder(path)
    found = weights_digest(path)
    if found != weights:
        raise BrokenCheckpoint(f"{path} holds weights {found[:12]}…, not the expected {weights[:12]}….")
    whole = _merged(path, scratch) if is_adapter(path) else path
    try:
        _require_finite(whole)
    except BrokenCheckpoint:
        if whole != path:
            shutil.rmtree(whole, ignore_errors=True)
        raise
    return whole


def _merged(path: Path, scratch: Path) -> Path:
    """A new folder below ``scratch`` with the merged weights of these adapters."""
    from ratchet.inference.model_loading import write_merged

    size_bytes = sum(file.stat().st_size for file in weight_files(whole_base(path)))
    require_room(scratch, size_bytes, f"a copy for vLLM of {path}, with its adapters merged,")
    with disk_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        target = Path(tempfile.mkdtemp(dir=scratch))
        try:
            write_merged(path, target)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return target


def _require_finite(path: Path) -> None:
    import torch
    from safetensors import safe_open

    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (safetensors knows no other way)
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise BrokenCheckpoint(f"{file}: tensor {name} holds NaN or infinite weights.")


@dataclass
class VllmReplica:
    """A vLLM process with one checkpoint. ``model`` is the model name for requests to it."""

    api: VllmApi
    model: str
    process: subprocess.Popen[bytes]

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process group: vLLM runs its engine in child processes."""
        self.api.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_running:
                return
            os.killpg(self.process.pid, number)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                continue


@dataclass
class VllmReplicas:
    """Starts the command of a setting. ``log_file`` receives the output of all processes.

    ``on_wait`` is called again and again while one starts, which takes from half a minute to many.
    """

    command: str
    dtype: str
    log_file: Path
    request_timeout_s: float
    connections: int
    start_timeout_s: float = START_TIMEOUT_S
    on_wait: Callable[[], None] = lambda: None
    _replicas: list[VllmReplica] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, path: Path, weights: str) -> VllmReplica:
        """Start a replica and wait until it is healthy. Raises ServingError, quoting the log, if that fails."""
        name = f"ratchet-{weights[:16]}"
        port = free_port()
        command = self.command.format(
            path=shlex.quote(str(path.resolve())), name=shlex.quote(name), port=port, dtype=_DTYPES[self.dtype]
        )
        process = self._started(command)
        api = VllmApi(f"http://127.0.0.1:{port}", self.request_timeout_s, self.connections)
        replica = VllmReplica(api, name, process)
        with self._lock:
            self._replicas = [*(other for other in self._replicas if other.is_running), replica]
        self._wait(replica, command)
        return replica

    def _started(self, command: str) -> subprocess.Popen[bytes]:
        try:
            with self.log_file.open("ab") as log:
                return subprocess.Popen(
                    shlex.split(command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=end_with_parent,
                )
        except FileNotFoundError as error:
            raise ServingError(f"`{command}`: {error}: install vLLM, or name its program (vllm_command).") from error

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The running processes, in the order in which they were started."""
        return tuple(replica.process for replica in self._replicas if replica.is_running)

    def close(self) -> None:
        for replica in self._replicas:
            replica.stop()

    def _wait(self, replica: VllmReplica, command: str) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not replica.api.is_healthy():
            code = replica.process.poll()
            if code is None and time.monotonic() < deadline:
                self.on_wait()
                time.sleep(POLL_S)
                continue
            replica.stop()
            why = f"did not answer within {self.start_timeout_s:g} s" if code is None else f"exited with code {code}"
            raise ServingError(f"`{command}` {why}: {self._log_tail()}")

    def _log_tail(self) -> str:
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - 1_000))
            return log.read().decode(errors="replace")
