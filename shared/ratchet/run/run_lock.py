"""One run per home: a lock file with the holder's process id, whose lock the kernel releases when the holder exits.

The lock shows whether a run is active. The text in the file only names its process, and may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ratchet.disk import home_errors, keep_private
from ratchet.errors import PreconditionFailed
from ratchet.file_lock import FileLock, is_locked

LOCK_FILE = "run.lock"


@dataclass(frozen=True)
class RunHolder:
    """The process of a home's run. ``pid`` is None if the file does not name it, such as while a run starts."""

    pid: int | None

    def __str__(self) -> str:
        return f"process {self.pid}" if self.pid is not None else f"a process that {LOCK_FILE} does not name"


@contextmanager
def hold_home(home: Path) -> Iterator[None]:
    """Hold the home's lock for the block. The home, and what this process creates, only this user can read.

    Raises PreconditionFailed, naming the other process, while another run is active; TransientError for a full or
    failing disk; and SettingsError for a home that is not writable.
    """
    keep_private(home)
    with home_errors(home):
        lock = FileLock.try_acquire(home / LOCK_FILE)
    if lock is None:
        raise PreconditionFailed(
            f"a run is already active in {home} ({RunHolder(_pid(home))}): `ratchet watch` shows it, "
            "`ratchet stop` ends it."
        )
    with lock:
        with home_errors(home):
            lock.write(str(os.getpid()))
        try:
            yield
        finally:
            with suppress(OSError):  # a failed disk must not hide the error that ended the run
                lock.write("")


def find_run(home: Path) -> RunHolder | None:
    """The active run of the home, or None. It needs only read permission, so it works for another user's home."""
    with home_errors(home):
        try:
            return RunHolder(_pid(home)) if is_locked(home / LOCK_FILE) else None
        except (FileNotFoundError, NotADirectoryError):
            return None


def _pid(home: Path) -> int | None:
    text = (home / LOCK_FILE).read_bytes().strip()
    return int(text) if text.isdigit() else None
