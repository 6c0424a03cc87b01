"""Leases on slots: lock files in a folder that all processes of a host share, with the holder's name as their text.

The callers know what a slot stands for (a gigabyte of a GPU, a worker's name). The kernel releases the slots of a
process that dies.
"""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ratchet.backoff import Backoff
from ratchet.disk import home_errors
from ratchet.errors import Stopping, TransientError
from ratchet.file_lock import FileLock, is_locked

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LAST_PAUSE_S = 0.01, 0.25
QUEUE = "turn"


@dataclass(frozen=True)
class Lease:
    """Slots held until ``close``, the end of its block, or the end of the process."""

    locks: tuple[FileLock, ...]

    def close(self) -> None:
        release_all(self.locks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class LeaseRequest:
    """A request for slots in ``folder`` that waits up to ``timeout_s``, or until ``should_stop`` turns true."""

    def __init__(self, what: str, folder: Path, timeout_s: float, should_stop: Callable[[], bool]) -> None:
        self._what, self._folder, self._timeout_s, self._should_stop = what, folder, timeout_s, should_stop
        self._deadline = time.monotonic() + timeout_s
        self._backoff = Backoff(FIRST_PAUSE_S, LAST_PAUSE_S)

    @contextmanager
    def at_the_head(self) -> Iterator[None]:
        """Wait for this request's turn to collect slots, so that small requests do not starve a large one."""
        while (queue := try_take(self._folder / QUEUE)) is None:
            self.wait()
        with queue:
            yield

    def wait(self) -> None:
        """Sleep for a moment. Raises Stopping when asked to stop, and TransientError when the time is up."""
        if self._should_stop():
            raise Stopping(f"Stopped while waiting for {self._what}.")
        if time.monotonic() >= self._deadline:
            raise TransientError(
                f"No {self._what} came free in {self._timeout_s:.0f} s. Held: {_holders(self._folder)}. "
                "The work is retried automatically."
            )
        self._backoff.wait()


def try_take(path: Path, note: str = "") -> FileLock | None:
    """The slot, with the holder noted in it, or None while it is taken. Raises as ``home_errors`` does."""
    with home_errors(path.parent):
        lock = FileLock.try_acquire(path)
    if lock is not None:
        try:
            lock.write(f"pid {os.getpid()} {note}".strip())
        except OSError as error:  # such as a full disk; the text is only for people
            log.warning("the holder of a lock cannot be written to its file: %s", error.strerror)
    return lock


def take_free(paths: Iterable[Path], note: str, most: int) -> list[FileLock]:
    """Take up to ``most`` of the slots, the first free ones."""
    taken: list[FileLock] = []
    for path in paths:
        if len(taken) == most:
            break
        if (lock := try_take(path, note)) is not None:
            taken.append(lock)
    return taken


def release_all(locks: Iterable[FileLock]) -> None:
    for lock in locks:
        lock.release()


def holder(path: Path) -> str | None:
    """The note of the process that holds a slot, ``""`` where it left none; None for a slot that is free."""
    return " ".join(path.read_text().split()[2:]) if is_locked(path) else None


def _holders(folder: Path) -> str:
    notes = [
        f"{path.name} by {path.read_text() or 'an unknown process'}"
        for path in sorted(folder.iterdir())
        if is_locked(path)
    ]
    return ", ".join(notes) or "none now"


@dataclass(frozen=True)
class WorkerName:
    """``system@host+slot``, unique among the living workers of a host. Held until ``release``."""

    system: str
    host: str
    slot: int
    lock: FileLock = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.system}@{self.host}+{self.slot}"

    def release(self) -> None:
        self.lock.release()


def claim_name(system: str, host: str, folder: Path) -> WorkerName:
    """Take the first free slot, counted from 0. ``folder`` is shared by all workers of the host."""
    for slot in itertools.count():
        lock = try_take(folder / "names" / f"{system}@{host}+{slot}")
        if lock is not None:
            return WorkerName(system, host, slot, lock)
    raise AssertionError("itertools.count never ends")
