"""Locks on files and folders by flock, which the kernel releases when the last process that holds them ends.

It is advisory, for processes of one machine, or of several that share a file system with working locks. It does not
know what a lock protects or what its file contains.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PROBE_S, PROBED_S = 0.002, 1.0
"""Pause before another try while only ``is_locked`` has the lock, for a moment, and how long to try at most."""


class FileLock:
    """A lock held on ``path`` until ``release``, the end of its block, or the end of the process.

    The file stays when the lock is released: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle = handle
        """The open descriptor. A process that inherits it holds the lock as well, until it ends."""
        self._is_held = True

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Wait for the lock. An absent file is created, with its folder; a folder is locked itself. Raises OSError."""
        lock = cls._locked(path, fcntl.LOCK_EX)
        assert lock is not None
        return lock

    @classmethod
    def try_acquire(cls, path: Path) -> Self | None:
        """The lock, or None while another process holds it. Otherwise as ``acquire``."""
        return cls._locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def _locked(cls, path: Path, operation: int) -> Self | None:
        handle, ends_at = _opened(path), time.monotonic() + PROBED_S
        try:
            while True:
                try:
                    fcntl.flock(handle, operation)
                    break
                except BlockingIOError:
                    if _is_held(handle) or time.monotonic() > ends_at:
                        os.close(handle)
                        return None
                time.sleep(random.uniform(0.0, PROBE_S))  # it was only ``is_locked``, here or in another process
        except BaseException:
            os.close(handle)
            raise
        return cls(path, handle)

    def write(self, text: str) -> None:
        """Replace the text of the locked file, such as the holder's name. Raises OSError if the disk is full."""
        os.ftruncate(self.handle, 0)
        os.pwrite(self.handle, text.encode(), 0)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._is_held:
            self._is_held = False
            os.close(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock. Needs only read permission. Raises OSError, also for an absent file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        return _is_held(handle)
    finally:
        os.close(handle)


def _is_held(handle: int) -> bool:
    """Whether another has the lock. Shared, so that two that ask do not see each other, and at once released."""
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(IsADirectoryError):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
