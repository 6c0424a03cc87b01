"""One locked file: the kernel's flock, which no death of a process can leave behind."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ratchet.closing import Closing
from ratchet.disk import home_trouble
from ratchet.errors import Stopping, TransientError

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.25


class FileLock:
    """A lock held on ``path``; its text says who holds it, where the disk took it. Files stay, since removing one would
    split the lock."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.handle = handle
        """A process that inherits it holds the lock too, until it ends."""
        self._is_held = True

    @classmethod
    def try_take(cls, path: Path, note: str = "") -> FileLock | None:
        """The lock, or None while another has it. Raises as ``home_trouble`` does where its file cannot be made."""
        with home_trouble(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        _note(handle, f"pid {os.getpid()} {note}".strip())
        return cls(path, handle)

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            os.close(self.handle)


def _note(handle: int, text: str) -> None:
    """Say who holds the lock. It is held all the same where the disk is full: the text is only for people."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    except OSError as error:
        log.warning("a lock is held, but its file cannot say by whom: %s", error.strerror)


@dataclass(frozen=True)
class Lease(Closing):
    """What its locks stand for, until ``close`` or the end of the process."""

    locks: tuple[FileLock, ...]

    def close(self) -> None:
        release_all(self.locks)


class Patience:
    """How long to wait for a lease, and when to give up."""

    def __init__(self, timeout_s: float, should_stop: Callable[[], bool]) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._should_stop = should_stop
        self._pause_s = _FIRST_PAUSE_S

    def wait(self, what: str, folder: Path) -> None:
        """Sleep a moment; raises Stopping when asked to stop and TransientError when time is up."""
        if self._should_stop():
            raise Stopping(f"Stopped while waiting for {what}.")
        if time.monotonic() >= self._deadline:
            raise TransientError(
                f"No {what} came free in {self._timeout_s:.0f} s. Held: {_holders(folder)}. "
                "The work is tried again by itself."
            )
        time.sleep(self._pause_s)
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 1.5)


@contextmanager
def turn(folder: Path, patience: Patience, what: str) -> Iterator[None]:
    """Wait for one's turn: one at a time collects, so that a large request is not starved by small ones."""
    while (gate := FileLock.try_take(folder / "turn")) is None:
        patience.wait(what, folder)
    try:
        yield
    finally:
        gate.release()


def take_free(paths: Iterable[Path], note: str, most: int) -> list[FileLock]:
    """Lock up to ``most`` of ``paths``, the first free ones."""
    taken: list[FileLock] = []
    for path in paths:
        if len(taken) == most:
            break
        if (lock := FileLock.try_take(path, note)) is not None:
            taken.append(lock)
    return taken


def release_all(locks: Iterable[FileLock]) -> None:
    for lock in locks:
        lock.release()


def _holders(folder: Path) -> str:
    notes = []
    for path in sorted(folder.iterdir()):
        if (lock := FileLock.try_take(path)) is None:
            notes.append(f"{path.name} by {path.read_text() or 'somebody'}")
        else:
            lock.release()
    return ", ".join(notes) or "none any more"
