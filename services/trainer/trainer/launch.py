"""Entry points of training processes: one, or several ranks under torch's elastic launcher.

A worker starts one child process. For training in one process the child runs ``run_segment``; for several it runs
``launch_ranks``, which starts one rank per GPU, as ``torchrun`` does, and reports for all of them. This module handles
sockets, signals and exit codes, and knows nothing of models. The launcher and its ranks exchange JSON lines over a Unix
socket.

``torchrun -m trainer.launch SPEC.json`` runs one segment by hand; rank 0 prints the result.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ratchet.errors import SettingsError
from ratchet.inference.gpu_limit import hold_to_share
from ratchet.processes.fork_server import DUMP_SIGNAL, Progress
from ratchet.processes.managed_process import end_with_parent
from ratchet.processes.messages import Channel, JsonObject, wait_for_any
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from trainer.distributed import Processes
from trainer.monitoring import STATUS_FILE, TrainingStatusWriter
from trainer.segment import ErrorKind, SegmentResult, SegmentSpec

ShouldStop = Callable[[], bool]
TrainRank = Callable[[SegmentSpec, Progress, ShouldStop], SegmentResult]

RANK = "--rank"

_TICK_S = 0.25
_DUMP_S = 0.5
"""Time to write all stack traces: the worker kills this process one second after requesting them."""


def run_segment(spec: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Train one segment in this process. Takes an encoded SegmentSpec; returns an encoded SegmentResult, failed or not.

    SIGTERM ends the segment after the current step; it is saved, and ``ended_by`` is ``stopped``.
    """
    try:
        decoded = SegmentSpec.decode(spec)
    except SettingsError as error:
        return SegmentResult(success=False, error_message=str(error), error_kind=ErrorKind.SETTINGS).encode()
    with stop_on(signal.SIGTERM) as stop:
        return train_segment(decoded, progress, stop.is_set).encode()


def train_segment(spec: SegmentSpec, progress: Progress, should_stop: ShouldStop) -> SegmentResult:
    """Train one segment, which ends after the step at which ``should_stop`` returns True."""
    from trainer.core import TrainerEngine  # imports transformers, which the launcher does not need

    status = TrainingStatusWriter(spec.status_path or spec.config.output.output_dir / STATUS_FILE)
    engine = TrainerEngine(status, report=progress, should_stop=should_stop, note=lambda note: progress({"note": note}))
    return SegmentResult.of(engine.run_job(spec.config))


@contextmanager
def stop_on(*numbers: signal.Signals) -> Iterator[threading.Event]:
    """Yield an event that is set by these signals. Outside the main thread, which alone gets them, it stays unset."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def launch_ranks(spec: dict[str, Any], progress: Progress, module: str = "trainer.launch") -> dict[str, Any]:
    """Train a segment in several processes on this machine, each of which runs ``python -m module``.

    Takes and returns what ``run_segment`` does. If a rank runs out of memory, all ranks are restarted with half the
    micro-batch. A rank that is killed ends this process by the same signal. Raises RuntimeError, with the traceback,
    for a rank that fails before it has a result.
    """
    decoded = SegmentSpec.decode(spec)
    with stop_on(signal.SIGTERM) as stop:  # around all launches: it is sent once, and may come between two of them
        while True:
            try:
                result = _launch_once(decoded, progress, stop, module)
            except _RankKilled as killed:
                _end_by(killed.rank, killed.number)
                raise
            if result.fits_smaller is None:
                return result.encode()
            progress({"note": f"no memory: again with a batch_size of {result.fits_smaller}"})
            decoded = decoded.limited_to(result.fits_smaller)  # the note may be lost, as on a full disk


def _launch_once(spec: SegmentSpec, progress: Progress, stop: threading.Event, module: str) -> SegmentResult:
    """Raises _RankKilled once the ranks' folder is removed, which a process that ends by a signal leaves behind."""
    if sys.platform == "linux":  # ranks on one machine do not need its network
        os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"})
    with tempfile.TemporaryDirectory(prefix="ratchet-ranks-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=spec.ranks,
            run_id="segment",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,  # the worker decides on restarts and counts the attempts
            logs_specs=DefaultLogsSpecs(log_dir=folder),  # error files; output goes where this process writes
            signals_to_handle="SIGHUP",  # by default SIGTERM kills the ranks; here it asks them to save, see RankLink
        )
        with RankLink(Path(folder) / "socket", spec, progress, stop) as link:
            _forward_dump_signal(link)
            try:
                elastic_launch(config, sys.executable)("-m", module, RANK, str(link.path))
            except ChildFailedError as error:
                link.close()
                return _failure(link, error)
        return link.results[0]


class _RankKilled(Exception):
    def __init__(self, rank: int, number: signal.Signals) -> None:
        super().__init__(f"rank {rank} was killed by {number.name}")
        self.rank, self.number = rank, number


def _failure(link: RankLink, error: ChildFailedError) -> SegmentResult:
    """The result of the rank that failed first, or an end by its signal.

    When a rank ends, the collectives of the others fail a moment later. So a result of a known error kind has priority,
    then an end by a signal, then a result of an unknown kind. The launcher itself ends the other ranks with SIGTERM.
    """
    known = (result for result in link.failed if result.error_kind != ErrorKind.UNEXPECTED)
    if result := next(known, None):
        return result
    for rank, failure in error.failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
            raise _RankKilled(rank, signal.Signals(-failure.exitcode))
    if link.failed:
        return link.failed[0]
    rank, failure = error.get_first_failure()
    message = failure.message  # text, or what @record has written
    trace = message
    if isinstance(message, dict):
        trace = message.get("extraInfo", {}).get("py_callstack") or message.get("message")
    raise RuntimeError(f"rank {rank} ended with code {failure.exitcode} and no result: {trace}") from error


def _end_by(rank: int, number: signal.Signals) -> None:
    """End this process by the same signal as the rank, so that the worker sees the same cause."""
    print(f"rank {rank} was killed by {number.name}", file=sys.stderr, flush=True)
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _forward_dump_signal(link: RankLink) -> None:
    """Have every rank write its stack to the log when the worker requests that from this process."""
    faulthandler.unregister(DUMP_SIGNAL)
    signal.signal(DUMP_SIGNAL, lambda *_: link.dump_stacks())


class RankLink:
    """The launcher's end of the connections to its ranks, served by a thread.

    Sends the spec to each rank, forwards progress, keeps results, and asks all ranks to stop once ``stop`` is set.
    Ranks exit together when all have succeeded: the exit of one would break connections that others still use.
    """

    def __init__(self, path: Path, spec: SegmentSpec, progress: Progress, stop: threading.Event) -> None:
        self.path = path
        self.results: dict[int, SegmentResult] = {}
        """Results of ranks that succeeded, by rank."""
        self.failed: list[SegmentResult] = []
        """Results of ranks that failed, in order of arrival."""
        self._spec = spec
        self._progress = progress
        self._stop = stop
        self._channels: dict[int, Channel] = {}
        self._pids: dict[int, int] = {}
        self._asked_to_stop: set[int] = set()
        self._closing = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        self._thread = threading.Thread(target=self._serve, name="ranks", daemon=True)

    def __enter__(self) -> RankLink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read the remaining messages of the ranks, then close all connections."""
        self._closing.set()
        self._thread.join()
        for channel in self._channels.values():
            channel.close()
        self._listener.close()

    def dump_stacks(self) -> None:
        """Have the ranks write their stacks to the log, one after the other, so that lines do not interleave."""
        for pid in list(self._pids.values()):
            try:
                os.kill(pid, DUMP_SIGNAL)
            except ProcessLookupError:
                continue
            time.sleep(_DUMP_S / len(self._pids))

    def _serve(self) -> None:
        while not self._closing.is_set():
            alive = {key: channel for key, channel in self._channels.items() if not channel.closed}
            wait_for_any([self._listener, *alive.values()], _TICK_S)
            self._accept()
            for key, channel in alive.items():
                for message in channel.receive(0):
                    self._handle(key, channel, message)
            self._forward_stop()
        for key, channel in self._channels.items():
            for message in channel.drain():
                self._handle(key, channel, message)

    def _accept(self) -> None:
        try:
            end, _ = self._listener.accept()
        except BlockingIOError:
            return
        end.setblocking(True)
        self._channels[len(self._channels)] = Channel(end)

    def _handle(self, key: int, channel: Channel, message: JsonObject) -> None:
        if "pid" in message:
            self._pids[key] = int(message["pid"])
            _send_if_alive(channel, {"spec": self._spec.encode()})
        elif "progress" in message:
            self._progress(message["progress"])
        else:
            self._keep(int(message["rank"]), SegmentResult.decode(message["result"]))

    def _keep(self, rank: int, result: SegmentResult) -> None:
        if not result.success:
            self.failed.append(result)
            return
        self.results[rank] = result
        if len(self.results) == self._spec.ranks:
            for channel in self._channels.values():
                _send_if_alive(channel, {"done": True})

    def _forward_stop(self) -> None:
        if self._stop.is_set():
            for key in self._pids.keys() - self._asked_to_stop:
                self._asked_to_stop.add(key)
                _send_if_alive(self._channels[key], {"stop": True})


def _send_if_alive(channel: Channel, message: JsonObject) -> None:
    with suppress(OSError):  # the elastic agent notices that a rank has ended, and knows its exit code
        channel.send(message)


@record  # writes an exception to a file that the elastic agent reads
def run_rank(address: str, train: TrainRank = train_segment) -> int:
    """The main function of one rank, started by ``launch_ranks``; returns its exit code. It ends with the launcher.

    A rank that fails exits with 1, so that the elastic agent ends the others, which would wait for it in a collective.
    """
    end_with_parent(signal.SIGKILL)
    faulthandler.enable()
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    processes = Processes.from_environment()
    _prepare_device(processes)
    launcher = _Launcher(address)
    launcher.channel.send({"pid": os.getpid()})
    spec = launcher.spec()
    result = train(spec, launcher.progress, launcher.stop.is_set)
    launcher.channel.send({"rank": processes.rank, "result": result.encode()})
    if not result.success:
        return 1
    launcher.done.wait()
    if dist.is_initialized():
        dist.destroy_process_group()
    return 0


def _prepare_device(processes: Processes) -> None:
    if torch.cuda.is_available():
        from accelerate.utils.environment import check_cuda_p2p_ib_support

        if not check_cuda_p2p_ib_support():  # RTX 40 cards under an old driver, which accelerate refuses otherwise
            os.environ.update({"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"})
        hold_to_share(processes.local_rank)


class _Launcher:
    """A rank's end of its connection to the launcher."""

    def __init__(self, address: str) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.connect(address)
        self.channel = Channel(end)
        self.stop = threading.Event()
        self.done = threading.Event()

    def spec(self) -> SegmentSpec:
        """Wait for the spec, then start a thread that reads the messages after it."""
        message = self.channel.receive_one()
        if message is None:
            raise ConnectionError("the launcher has ended")
        threading.Thread(target=self._listen, name="launcher", daemon=True).start()
        return SegmentSpec.decode(message["spec"])

    def progress(self, message: dict[str, Any]) -> None:
        self.channel.send({"progress": message})

    def _listen(self) -> None:
        while not self.channel.closed:
            for message in self.channel.receive(None):
                (self.stop if "stop" in message else self.done).set()
        if not self.done.is_set():
            os.killpg(0, signal.SIGKILL)  # the elastic agent starts each rank in its own process group


def main() -> int:
    """``SPEC.json`` under torchrun, or ``--rank SOCKET`` as ``launch_ranks`` starts it. Returns the exit code."""
    if sys.argv[1] == RANK:
        return run_rank(sys.argv[2]) or 0
    result = run_segment(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), lambda _: None)
    if Processes.from_environment().is_main:
        print(json.dumps(result))
    return 0 if result["success"] else 1


if __name__ == "__main__":
    sys.exit(main())
