"""JSON messages, a line each, over a connected socket. Knows nothing of what they mean."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

Message = dict[str, Any]


class HasFileno(Protocol):
    """What can be polled: a Channel, or a socket that listens."""

    def fileno(self) -> int: ...


_CHUNK_BYTES = 1 << 16


class Channel:
    """One end of a conversation. ``closed`` once the other end is gone and all it said was received."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unread = bytearray()
        self.closed = False

    def send(self, message: Message) -> None:
        """Blocks until all of it is handed over; raises OSError when the other end is gone."""
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float | None) -> list[Message]:
        """The messages complete by now, after waiting up to ``timeout_s`` (None: for ever) for more bytes."""
        if not self._is_readable(timeout_s):
            return []
        try:
            chunk = self._end.recv(_CHUNK_BYTES)
        except ConnectionError:
            chunk = b""
        if not chunk:
            self.closed = True
            return []
        return self._messages(chunk)

    def drain(self) -> Iterator[Message]:
        """What lies ready, without waiting for more."""
        while not self.closed and self._is_readable(0):
            yield from self.receive(0)

    def receive_one(self) -> Message | None:
        """The next message of a peer that sends one at a time; None when it is gone."""
        while not self.closed:
            if messages := self.receive(None):
                return messages[0]
        return None

    def close(self) -> None:
        self._end.close()

    def fileno(self) -> int:
        return self._end.fileno()

    def _is_readable(self, timeout_s: float | None) -> bool:
        return wait_for_any([self], timeout_s)

    def _messages(self, chunk: bytes) -> list[Message]:
        self._unread += chunk
        if b"\n" not in chunk:
            return []
        *lines, rest = self._unread.split(b"\n")
        self._unread = rest
        return [json.loads(line) for line in lines]


def wait_for_any(channels: Sequence[HasFileno], timeout_s: float | None) -> bool:
    """Whether one of them has bytes, a connection or its end to receive, after waiting up to ``timeout_s`` (None: for
    ever)."""
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
