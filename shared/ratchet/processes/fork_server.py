"""The fork server: imports heavy modules once, in a single thread, then forks a child for each function to run.

Runs as ``python -m ratchet.processes.fork_server MODULE…`` with the channel of its first runner as standard input. That
runner may add others, such as the workers of one machine, which then need not import the modules each on their own.
When a runner is gone its children are killed, and the server ends with its last runner. It does not know what the
functions do. A child stays a zombie until it is polled, so that its process id is not reused.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ratchet.disk import is_full
from ratchet.errors import SettingsError, TransientError, UnknownPlugin
from ratchet.processes.managed_process import ManagedProcess, kill_group
from ratchet.processes.messages import (
    AddRunner,
    Channel,
    ChildForked,
    ChildMessage,
    ChildStatus,
    ForkChild,
    ForkFailed,
    ForkReply,
    ForkRequest,
    ImportFailed,
    PollChild,
    ProgressReport,
    Ready,
    RunTarget,
    SignalChild,
    SignalSent,
    TargetError,
    TargetResult,
    decode,
    encode,
    ready_ones,
)

REAP_S = 0.2
"""How often killed children are polled whose runner is gone."""
DUMP_SIGNAL = signal.SIGUSR1
"""Makes a child write the stack of each of its threads to its log."""

Progress = Callable[[dict[str, Any]], None]
"""What a target calls to report progress; the message is any JSON object."""

Target = Callable[[dict[str, Any], Progress], dict[str, Any]]


class ForkServer:
    """Serves runners until the last is gone. ``greeting`` is sent to each that is added."""

    def __init__(self, first: Channel, greeting: Ready | ImportFailed) -> None:
        self._greeting = greeting
        self._children: dict[Channel, dict[int, ManagedProcess]] = {first: {}}
        self._killed: list[ManagedProcess] = []

    def serve(self) -> None:
        """Serve until all runners are gone for any reason; then end everything that was started here."""
        try:
            while self._children:
                for runner in ready_ones(list(self._children), REAP_S if self._killed else None):
                    self._serve_one(runner)
                self._killed = [child for child in self._killed if child.poll() is None]
        finally:
            for children in self._children.values():
                for child in children.values():
                    child.kill()

    def _serve_one(self, runner: Channel) -> None:
        try:
            message, handles = runner.receive_with_handles(2)
            if message is None:
                self._part_from(runner)
            elif isinstance(request := decode(message), AddRunner):
                for handle in handles:
                    self._add(Channel(socket.socket(fileno=handle)))
            else:
                runner.send(encode(self._handle(runner, request, handles)))
        except ConnectionError:
            self._part_from(runner)

    def _add(self, runner: Channel) -> None:
        with contextlib.suppress(OSError):  # it is gone already, which the next read finds
            runner.send(encode(self._greeting))
        self._children[runner] = {}

    def _part_from(self, runner: Channel) -> None:
        """Kill the children of a runner that is gone; they are reaped as they end."""
        for child in self._children.pop(runner).values():
            child.kill()
            self._killed.append(child)
        runner.close()

    def _handle(self, runner: Channel, request: ForkRequest, handles: list[int]) -> ForkReply:
        children = self._children[runner]
        match request:
            case ForkChild():
                return self._fork(children, *handles)
            case PollChild(pid):
                exit_code = children[pid].poll()
                if exit_code is not None:
                    del children[pid]
                return ChildStatus(exit_code)
            case SignalChild(pid, number):
                if (child := children.get(pid)) is not None:
                    child.send_signal(number)
                return SignalSent()
        raise TypeError(f"{request} has no reply")

    def _fork(self, children: dict[int, ManagedProcess], end_handle: int, log_handle: int) -> ForkReply:
        def body() -> int:
            for runner in self._children:
                runner.close()  # else they would not notice the server's end while this child runs
            run_child(Channel(socket.socket(fileno=end_handle)), log_handle)
            return 0

        try:
            child = ManagedProcess.fork(body, parent_death_signal=signal.SIGKILL)
        except OSError as error:
            return ForkFailed(str(error))
        finally:
            os.close(end_handle)
            os.close(log_handle)
        children[child.pid] = child
        return ChildForked(child.pid)


class _RunnerGone(ConnectionError):
    """There is no runner to send to. A target's own connections may break too: those errors are sent like others."""


def run_child(channel: Channel, log_handle: int) -> None:
    """The body of a child: receive the target, run it, report its progress, and send its result or error."""
    _write_to(log_handle)
    message = channel.receive_one()
    if message is None:
        return
    request: RunTarget = decode(message)
    threading.Thread(target=_die_with, args=(channel,), name="lifeline", daemon=True).start()
    sending = threading.Lock()

    def send(message: ChildMessage) -> None:
        with sending:
            try:
                channel.send(encode(message))
            except OSError as error:
                raise _RunnerGone from error

    try:
        result = load_target(request.target)(request.spec, lambda progress: send(ProgressReport(progress)))
        if not isinstance(result, dict):
            raise TypeError(f"{request.target} returned {type(result).__name__}; a target returns a dict")
        send(TargetResult(result))
    except _RunnerGone:
        return
    except BaseException as error:  # noqa: BLE001  every error of the target is sent to the parent
        traceback.print_exc()
        send(_described(error))


def load_target(name: str) -> Target:
    module, _, function = name.partition(":")
    target: Target = getattr(importlib.import_module(module), function)
    return target


def _described(error: BaseException) -> TargetError:
    return TargetError(
        type=type(error).__name__,
        message=str(error),
        trace="".join(traceback.format_exception(error)),
        is_out_of_memory=_is_out_of_memory(error),
        is_transient=isinstance(error, TransientError) or (isinstance(error, OSError) and is_full(error)),
        is_of_settings=isinstance(error, SettingsError | UnknownPlugin),
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """torch raises OutOfMemoryError on a GPU, and a plain RuntimeError when the host's memory runs out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _write_to(log_handle: int) -> None:
    os.dup2(log_handle, 1)
    os.dup2(log_handle, 2)
    os.close(log_handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(file=sys.stderr)
    faulthandler.register(DUMP_SIGNAL, file=sys.stderr, all_threads=True)


def _die_with(channel: Channel) -> None:
    """Kill this process group when the parent ends. The parent sends nothing after its request, so a readable channel
    means its end.

    The parent-death signal is not enough: it is sent when the fork server ends, not when the runner does.
    """
    try:
        channel.receive(None)
    finally:
        kill_group(os.getpid())


def main() -> None:
    channel = Channel.from_stdin()
    greeting: Ready | ImportFailed
    try:
        for module in sys.argv[1:]:
            importlib.import_module(module)
    except Exception:  # noqa: BLE001  the runner reports the module and a remedy
        greeting = ImportFailed(traceback.format_exc())
    else:
        greeting = Ready(_thread_count(), os.getpid())
    gc.collect()
    gc.freeze()
    with contextlib.suppress(ConnectionError):
        channel.send(encode(greeting))
    ForkServer(channel, greeting).serve()


def _thread_count() -> int:
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir("/proc/self/task"))
    return threading.active_count()


if __name__ == "__main__":
    main()
