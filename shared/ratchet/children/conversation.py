"""What parent and children say to each other, from the order to the result or the end of patience."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ratchet.children.channel import Message, wait_for_any
from ratchet.children.child import WHERE_SIGNAL
from ratchet.children.process import ChildProcess
from ratchet.errors import ChildFailed, RatchetError, SettingsError, Stopping, TransientError

_TICK_S = 0.25
_EXIT_S = 10.0
_WHERE_S = 0.2


class Conversation:
    """One run of one child, or of several side by side; see ChildRunner.run for what ends it and how."""

    def __init__(
        self,
        children: Sequence[ChildProcess],
        target: str,
        on_progress: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        is_failure: Callable[[dict[str, Any]], bool],
        stall_s: float,
        grace_s: Callable[[], float],
    ) -> None:
        self._children = children
        self._target = target
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._is_failure = is_failure
        self._stall_s = stall_s
        self._grace_s = grace_s
        self._heard_at = time.monotonic()
        self._asked_at: float | None = None

    def hold(self, specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for child, spec in zip(self._children, specs, strict=True):
            with contextlib.suppress(ConnectionError):  # a child that is dead already is told by _listen
                child.channel.send({"target": self._target, "spec": dict(spec), "stays": len(specs) > 1})
        while True:
            for child, message in self._listen():
                self._heard_at = time.monotonic()
                if "progress" in message:
                    self._on_progress(message["progress"])
                elif (result := self._last_word(child, message)) is not None:
                    return result
            self._check_stop()
            self._check_stall()

    def _last_word(self, child: ChildProcess, message: Message) -> dict[str, Any] | None:
        """The result of all, unless others are still to be heard. What fails because another died is told as that."""
        result: dict[str, Any] = message.get("result", {})
        has_failed = "error" in message or self._is_failure(result)
        if not has_failed:
            return result if child is self._children[0] else None
        if len(self._children) > 1:
            self._tell_of_a_death(child)
        if "error" in message:
            raise self._failure(message["error"])
        return result

    def _tell_of_a_death(self, survivor: ChildProcess) -> None:
        """Raise it where one of the others is dead, or dies within a tick."""
        deadline = time.monotonic() + _TICK_S
        while time.monotonic() < deadline:
            for child in self._children:
                if child is not survivor and child.exit_code() is not None:
                    raise self._death(child)
            time.sleep(_TICK_S / 10)

    def _listen(self) -> Iterator[tuple[ChildProcess, Message]]:
        """What came within a tick, of whom. A dead child is heard out before its death is told."""
        wait_for_any([child.channel for child in self._children], _TICK_S)
        for child in self._children:
            channel = child.channel
            for message in channel.receive(0):
                yield child, message
            if channel.closed or child.exit_code() is not None:
                for message in channel.drain():
                    yield child, message
                raise self._death(child)

    def _check_stop(self) -> None:
        """Those beside the first learn of a stop from it."""
        if self._asked_at is None:
            if self._should_stop():
                self._asked_at = time.monotonic()
                self._children[0].send_signal(signal.SIGTERM)
        elif time.monotonic() > self._asked_at + self._grace_s():
            raise self._stopping()

    def _check_stall(self) -> None:
        silence_s = time.monotonic() - self._heard_at
        if silence_s > self._stall_s:
            for child in self._children:
                child.send_signal(WHERE_SIGNAL)
            self._children[-1].wait(_WHERE_S)
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

    def _death(self, child: ChildProcess) -> RatchetError:
        if self._asked_at is not None:
            return self._stopping()
        exit_code, ran = child.wait(_EXIT_S), f"{self._target}{self._place(child)}"
        if exit_code is None:
            return ChildFailed(f"{ran} closed its channel without a result, and was killed.")
        if exit_code >= 0:
            return ChildFailed(f"{ran} exited with code {exit_code} and no result; see its log.")
        name = signal.Signals(-exit_code).name
        hint = "; the kernel does that when memory runs out" if name == "SIGKILL" else ""
        return ChildFailed(f"The child that ran {ran} was killed by {name}{hint}.", killed=True)

    def _place(self, child: ChildProcess) -> str:
        count = len(self._children)
        return f" as process {self._children.index(child) + 1} of {count}" if count > 1 else ""

    def _stopping(self) -> Stopping:
        return Stopping(f"{self._target} was stopped before it had a result.")
