"""Messages between Ratchet's processes: typed, encoded as one line of JSON each, and sent over a socket.

It does not know how a process acts on them.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

from ratchet.processes.managed_process import ManagedProcess, describe_exit

JsonObject = dict[str, Any]

KILLED_S = 5.0
"""How long the kernel may take to end a killed process."""
_CHUNK_BYTES = 1 << 16


# From a runner to the child that runs a function for it, and back.


@dataclass(frozen=True)
class RunTarget:
    """Call ``target`` (``module:function``) with ``spec``."""

    target: str
    spec: JsonObject


@dataclass(frozen=True)
class ProgressReport:
    message: JsonObject


@dataclass(frozen=True)
class TargetResult:
    result: JsonObject


@dataclass(frozen=True)
class TargetError:
    """What the target raised."""

    type: str
    message: str
    trace: str
    is_out_of_memory: bool
    is_transient: bool
    is_of_settings: bool


# From a runner to its fork server, and back.


@dataclass(frozen=True)
class Ready:
    """The fork server has imported its modules, and runs this many threads. ``pid`` is its own."""

    threads: int
    pid: int


@dataclass(frozen=True)
class ImportFailed:
    trace: str


@dataclass(frozen=True)
class ForkChild:
    """Comes with two descriptors: the child's end of its channel, and its log."""


@dataclass(frozen=True)
class AddRunner:
    """Comes with the fork server's end of a further runner's channel. It has no reply; the runner is greeted."""


@dataclass(frozen=True)
class ChildForked:
    pid: int


@dataclass(frozen=True)
class ForkFailed:
    error: str


@dataclass(frozen=True)
class PollChild:
    pid: int


@dataclass(frozen=True)
class ChildStatus:
    """``exit_code`` is as in subprocess (negative: killed by that signal), and None while the child runs."""

    exit_code: int | None


@dataclass(frozen=True)
class SignalChild:
    pid: int
    number: int


@dataclass(frozen=True)
class SignalSent:
    pass


# From a client to its supervisor, and back.


@dataclass(frozen=True)
class Configure:
    """The first message, without a reply: the settings in full, with their secrets."""

    settings: JsonObject


@dataclass(frozen=True)
class StartWorker:
    name: str
    system: str


@dataclass(frozen=True)
class StartCommand:
    name: str
    command: list[str]
    environment: dict[str, str]
    log: str


@dataclass(frozen=True)
class StopProcess:
    name: str


@dataclass(frozen=True)
class ListProcesses:
    pass


@dataclass(frozen=True)
class ProcessState:
    """One supervised process. ``pid`` is None while it is down; ``exit_code`` is that of the last process that
    ended."""

    pid: int | None
    restarts: int
    exit_code: int | None


@dataclass(frozen=True)
class ProcessList:
    processes: dict[str, ProcessState]


@dataclass(frozen=True)
class RequestRefused:
    error: str


ChildMessage = ProgressReport | TargetResult | TargetError
ForkRequest = ForkChild | PollChild | SignalChild | AddRunner
ForkReply = Ready | ImportFailed | ChildForked | ForkFailed | ChildStatus | SignalSent
SupervisorRequest = StartWorker | StartCommand | StopProcess | ListProcesses
SupervisorReply = ProcessList | RequestRefused
Message = RunTarget | ChildMessage | ForkRequest | ForkReply | Configure | SupervisorRequest | SupervisorReply

_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Message.__args__}


def encode(message: Message) -> JsonObject:
    fields = {"kind": type(message).__name__, **vars(message)}  # not asdict, which copies a spec of megabytes
    if isinstance(message, ProcessList):
        fields["processes"] = {name: vars(state) for name, state in message.processes.items()}
    return fields


def decode(fields: JsonObject) -> Any:
    """The message that ``encode`` has encoded."""
    kind = _KINDS[fields["kind"]]
    values = {name: value for name, value in fields.items() if name != "kind"}
    if kind is ProcessList:
        values["processes"] = {name: ProcessState(**state) for name, state in values["processes"].items()}
    return kind(**values)


class Channel:
    """One end of a connected socket. ``closed`` once the other end is gone and everything it sent was received."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unread = bytearray()
        self._ready: deque[JsonObject] = deque()
        self.closed = False

    @classmethod
    def from_stdin(cls) -> Self:
        """The channel that this process was started with; standard input is empty afterwards."""
        end = socket.socket(fileno=os.dup(0))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return cls(end)

    def send(self, message: JsonObject, handles: Sequence[int] = ()) -> None:
        """Send a message, blocking until it is written; raises OSError when the other end is gone.

        ``handles`` are descriptors to pass along with a short message.
        """
        line = json.dumps(message).encode() + b"\n"
        if handles:
            socket.send_fds(self._end, [line], list(handles))
        else:
            self._end.sendall(line)

    def receive(self, timeout_s: float | None) -> list[JsonObject]:
        """The messages received so far, after waiting up to ``timeout_s`` (None: forever) for more bytes."""
        if not self._ready:
            self._read(timeout_s)
        messages = list(self._ready)
        self._ready.clear()
        return messages

    def receive_one(self, timeout_s: float | None = None) -> JsonObject | None:
        """The next message; None when the other end is gone, or nothing was received for ``timeout_s``."""
        while not self._ready and not self.closed:
            if not self._read(timeout_s):
                return None
        return self._ready.popleft() if self._ready else None

    def receive_with_handles(self, most: int) -> tuple[JsonObject | None, list[int]]:
        """The next message of a peer that waits for an answer to each, and up to ``most`` descriptors with it."""
        line, handles, _, _ = socket.recv_fds(self._end, _CHUNK_BYTES, most)
        for handle in handles:
            os.set_inheritable(handle, False)  # unlike all that Python opens; a program that is started would have it
        self.closed = not line
        return (json.loads(line), handles) if line else (None, handles)

    def drain(self) -> Iterator[JsonObject]:
        """The messages received so far, without waiting."""
        while not self.closed and (self._ready or wait_for_any([self], 0)):
            yield from self.receive(0)

    def shut_down(self) -> None:
        """Shut the connection down for both ends, which wakes a thread that waits for a message."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def finish(self, timeout_s: float) -> None:
        """Send nothing more, and wait up to ``timeout_s`` until the other end is closed."""
        ends_at = time.monotonic() + timeout_s
        self._end.shutdown(socket.SHUT_WR)
        while wait_for_any([self], max(0.0, ends_at - time.monotonic())) and self._end.recv(_CHUNK_BYTES):
            pass

    def close(self) -> None:
        self._end.close()

    def fileno(self) -> int:
        return self._end.fileno()

    def _read(self, timeout_s: float | None) -> bool:
        """Read once; returns whether there were bytes or the end of the stream."""
        if not wait_for_any([self], timeout_s):
            return False
        try:
            chunk = self._end.recv(_CHUNK_BYTES)
        except ConnectionError:
            chunk = b""
        self.closed = not chunk
        self._unread += chunk
        if b"\n" in chunk:
            *lines, self._unread = self._unread.split(b"\n")
            self._ready += [json.loads(line) for line in lines]
        return True


class HasFileno(Protocol):
    """Anything that can be polled: a Channel, or a listening socket."""

    def fileno(self) -> int: ...


def wait_for_any(sources: Sequence[HasFileno], timeout_s: float | None) -> bool:
    """Whether one of them has bytes, a connection or the end of its stream, after up to ``timeout_s`` (None:
    forever)."""
    return bool(ready_ones(sources, timeout_s))


Source = TypeVar("Source", bound=HasFileno)


def ready_ones(sources: Sequence[Source], timeout_s: float | None) -> list[Source]:
    """Those that have bytes, a connection or the end of their stream, after up to ``timeout_s`` (None: forever)."""
    poll = select.poll()
    by_handle = {source.fileno(): source for source in sources}
    for handle in by_handle:
        poll.register(handle, select.POLLIN)
    return [by_handle[handle] for handle, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)]


_SLICE_S = 0.5


class ServerGone(Exception):
    """A server process has ended, with everything it started."""


class ServerConnection:
    """A channel to a server process, which answers one request at a time. Any thread may send requests.

    The server ends, with everything it started for this connection, when its end of the channel closes, even if this
    process is killed.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._asking = threading.Lock()

    def has_ended(self) -> bool:
        """Whether the server is known to be gone."""
        return self._channel.closed

    def ask(
        self,
        request: Message,
        handles: Sequence[int] = (),
        *,
        timeout_s: float | None = None,
        give_up: Callable[[], bool] = lambda: False,
    ) -> Any:
        """The reply. Raises ServerGone; a server that has not replied after ``timeout_s``, or when ``give_up`` returns
        true, is given up first."""
        asked_at = time.monotonic()
        with self._asking:
            try:
                self._channel.send(encode(request), handles)
                reply = self._channel.receive_one(_slice(timeout_s, asked_at))
                while reply is None and not self._channel.closed and not give_up():
                    if (left_s := _slice(timeout_s, asked_at)) <= 0:
                        break
                    reply = self._channel.receive_one(left_s)
            except (OSError, ValueError) as error:
                raise ServerGone(str(error)) from error
        if reply is None and not self._channel.closed:
            how = self._give_up()
            raise ServerGone(f"it has not answered for {time.monotonic() - asked_at:.0f} s and was {how}")
        if reply is None:
            raise ServerGone("it has closed its channel")
        return decode(reply)

    def send(self, message: Message, handles: Sequence[int] = ()) -> None:
        """Send a message that has no reply. Raises ServerGone."""
        try:
            self._channel.send(encode(message), handles)
        except OSError as error:
            raise ServerGone(str(error)) from error

    def first(self) -> Any:
        """The server's first message, which is not a reply; None if it ends before sending one."""
        greeting = self._channel.receive_one()
        return None if greeting is None else decode(greeting)

    def hang_up(self) -> None:
        """Ask the server to end what it started for this connection, without waiting."""
        self._channel.shut_down()

    def leave(self) -> None:
        """Close the copy of the connection that a fork of its owner has inherited."""
        self._channel.close()

    def close(self, timeout_s: float) -> None:
        """Hang up, and wait up to ``timeout_s`` for the server to part from this connection, which kills what it has
        started for it."""
        with suppress(OSError):
            self._channel.finish(timeout_s)
        self._channel.close()

    def describe_end(self) -> str:
        return "it has closed its channel"

    def _give_up(self) -> str:
        self.hang_up()
        return "left"


class ServerProcess(ServerConnection):
    """A module of Ratchet in its own process, and the connection to it. The server ends with its last connection."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str], output: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", module, *arguments]
        with theirs:
            self.process = ManagedProcess.spawn(command, environment, stdin=theirs.fileno(), output=output)
        super().__init__(Channel(ours))

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def close(self, timeout_s: float) -> None:
        """Hang up, wait for the server's end up to ``timeout_s``, and then kill it."""
        self.hang_up()
        if self.process.wait(timeout_s) is None:
            self.process.kill()
            self.process.wait(KILLED_S)
        self._channel.close()

    def describe_end(self) -> str:
        return f"it {describe_exit(self.process.poll())}"

    def _give_up(self) -> str:
        self.process.kill()
        return "killed"


def _slice(timeout_s: float | None, since: float) -> float:
    """How long to wait at once: a short while, so that a waiter notices what else has happened."""
    return _SLICE_S if timeout_s is None else min(_SLICE_S, since + timeout_s - time.monotonic())
