"""One run a home: a lock that the kernel frees when its holder dies, with the holder's process id in it.

The lock says whether something runs; the text in the file only says which process it is, and may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed
from ratchet.file_lock import FileLock, is_locked

LOCK_FILE = "run.lock"


@dataclass(frozen=True)
class RunHolder:
    """The process that runs in a home. ``pid`` is None where the file does not tell it, as while a run begins."""

    pid: int | None

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid is not None else f"a process that {LOCK_FILE} does not name"


@contextmanager
def hold_home(home: Path) -> Iterator[None]:
    """Hold the home's lock for the block.

    Raises PreconditionFailed, naming the other process, while one runs; TransientError for a disk that is full or
    fails, and SettingsError for a home that cannot be written to.
    """
    with home_errors(home):
        lock = FileLock.try_acquire(home / LOCK_FILE)
    if lock is None:
        raise PreconditionFailed(
            f"a run is going on in {home} already ({RunHolder(_pid(home))}): `ratchet watch` shows it, "
            "`ratchet stop` ends it."
        )
    with lock:
        with home_errors(home):
            lock.write(str(os.getpid()))
        try:
            yield
        finally:
            with suppress(OSError):  # a disk that has failed meanwhile must not hide how the run ended
                lock.write("")


def find_run(home: Path) -> RunHolder | None:
    """What runs in the home, or None when nothing does. Reading is enough, so it works in a home of another user."""
    with home_errors(home):
        try:
            return RunHolder(_pid(home)) if is_locked(home / LOCK_FILE) else None
        except (FileNotFoundError, NotADirectoryError):
            return None


def _pid(home: Path) -> int | None:
    text = (home / LOCK_FILE).read_bytes().strip()
    return int(text) if text.isdigit() else None
