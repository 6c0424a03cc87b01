"""Counts how often each item key occurs in one batch: on disk, so that memory does not grow with the batch.

The data gate and the generation of batches both count with it.
"""

from __future__ import annotations

import hashlib
import sqlite3

from ratchet.errors import TransientError

_CACHE_KIB = 8_000


class UsageCounts:
    """Counts by item key, in a private, temporary SQLite database that ends with ``close``. For one thread.

    Raises TransientError where the disk of temporary files is full or fails.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def __getitem__(self, key: str) -> int:
        row = self._execute("SELECT n FROM seen WHERE digest = ?", key).fetchone()
        return 0 if row is None else int(row[0])

    def add(self, key: str) -> None:
        """Count the key once more."""
        self._execute("INSERT INTO seen VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET n = n + 1", key)

    def close(self) -> None:
        self._database.close()

    def _execute(self, statement: str, key: str) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, (hashlib.blake2b(key.encode(), digest_size=16).digest(),))
        except sqlite3.Error as error:
            raise TransientError(
                f"the counts of item keys cannot be kept ({error}): make room on the disk of temporary files, or let "
                "SQLITE_TMPDIR name a folder on another one."
            ) from error
