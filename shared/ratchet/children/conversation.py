"""What parent and child say to each other, from the order to the result or the time limit."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ratchet.children.channel import Message
from ratchet.children.child import WHERE_SIGNAL
from ratchet.children.process import ChildProcess
from ratchet.errors import ChildFailed, RatchetError, SettingsError, Stopping, TransientError

_TICK_S = 0.25
_EXIT_S = 10.0
_WHERE_S = 1.0
"""For a child to write where its threads are, and to have its own processes do so."""


class Conversation:
    """One run of a child; see ChildRunner.run for what ends it and how."""

    def __init__(
        self,
        child: ChildProcess,
        target: str,
        on_progress: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        stall_s: float,
        grace_s: Callable[[], float],
    ) -> None:
        self._child = child
        self._target = target
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._stall_s = stall_s
        self._grace_s = grace_s
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None

    def hold(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(ConnectionError):  # _listen raises for a child that is dead already
            self._child.channel.send({"target": self._target, "spec": dict(spec)})
        while True:
            for message in self._listen():
                self._heard_at = time.monotonic()
                if "progress" in message:
                    self._on_progress(message["progress"])
                elif "error" in message:
                    raise self._failure(message["error"])
                else:
                    result: dict[str, Any] = message["result"]
                    return result
            self._check_stop()
            self._check_stall()

    def _listen(self) -> Iterator[Message]:
        """What came within a tick. All that a dead child has sent is read before its death is raised."""
        channel = self._child.channel
        yield from channel.receive(_TICK_S)
        if channel.closed or self._child.exit_code() is not None:
            yield from channel.drain()
            raise self._death()

    def _check_stop(self) -> None:
        if self._asked_at is None:
            if self._should_stop():
                self._asked_at = time.monotonic()
                self._child.send_signal(signal.SIGTERM)
        elif time.monotonic() > self._asked_at + self._grace_s():
            raise self._stopping()

    def _check_stall(self) -> None:
        silence_s = time.monotonic() - self._heard_at
        if silence_s > self._stall_s:
            self._child.send_signal(WHERE_SIGNAL)
            self._child.wait(_WHERE_S)
            raise ChildFailed(
                f"{self._target} made no progress for {silence_s:.0f} s and was killed; "
                "raise its system's step time if it needs longer between two signs of life."
            )

    def _failure(self, error: Message) -> RatchetError:
        if self._asked_at is not None:
            return self._stopping()
        failure = ChildFailed(
            f"{self._target} raised {error['type']}: {error['message']}",
            error_type=error["type"],
            out_of_memory=error["is_out_of_memory"],
            trace=error["trace"],
        )
        for kind, name in ((TransientError, "is_of_surroundings"), (SettingsError, "is_of_settings")):
            if error[name]:
                trouble = kind(error["message"])
                trouble.__cause__ = failure
                return trouble
        return failure

    def _death(self) -> RatchetError:
        if self._asked_at is not None:
            return self._stopping()
        exit_code = self._child.wait(_EXIT_S)
        if exit_code is None:
            return ChildFailed(f"{self._target} closed its channel without a result, and was killed.")
        if exit_code >= 0:
            return ChildFailed(f"{self._target} exited with code {exit_code} and no result; see its log.")
        name = signal.Signals(-exit_code).name
        hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
        return ChildFailed(f"The child that ran {self._target} was killed by {name}{hint}.", killed=True)

    def _stopping(self) -> Stopping:
        return Stopping(f"{self._target} was stopped before it had a result.")
