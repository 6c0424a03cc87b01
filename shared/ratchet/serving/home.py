"""The server's folder: who holds it, and where the server is to be found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from ratchet.disk import home_trouble, write_atomically
from ratchet.errors import ServingError
from ratchet.file_lock import FileLock


class ServerHome:
    """Held by one server at a time, as a context manager, through a lock that dies with the process."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        """Take the folder, made if need be.

        Raises ServingError while another server has it, TransientError or SettingsError for one that cannot be
        written to.
        """
        with home_trouble(self.folder):
            self._lock = FileLock.try_acquire(self.folder / "server.lock")
        if self._lock is None:
            raise ServingError(f"another inference server runs in {self.folder}; stop it first.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()

    def announce(self, url: str) -> None:
        """Write ``server.json`` with the address and the process id."""
        write_atomically(self.folder / "server.json", json.dumps({"url": url, "pid": os.getpid()}))


def announced_url(folder: Path) -> str | None:
    """The address that a server in this folder last announced; None for a file that is absent or cannot be read.

    Every start announces anew, so a damaged file is as good as none.
    """
    try:
        return str(json.loads((folder / "server.json").read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
