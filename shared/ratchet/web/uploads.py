"""Files that viewers send: written to disk as they arrive, each in a folder of its own, and removed once they are old.

A name from a browser is hostile input. Only a safe last part of it is kept, with the ending that tells the file's kind.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool

from ratchet.data.file_kinds import PACKED_SUFFIXES, ROW_SUFFIXES
from ratchet.disk import free_bytes, home_errors
from ratchet.errors import PreconditionFailed
from ratchet.wording import size

KEPT_S = 86_400.0
"""A file is kept this long, so that other options can be tried on it."""
COPIES = 3
"""Room that a file needs: itself, its rows as they are converted, and the batch that is published."""
MARGIN_BYTES = 1_000_000_000
"""Free space that checkpoints and the ledger keep."""
PIECE_BYTES = 1 << 20
MOST_STEM_BYTES = 120

_ENDINGS = "|".join(re.escape(ending) for ending in ROW_SUFFIXES)
_PACKED = "|".join(re.escape(ending) for ending in PACKED_SUFFIXES)
_SUFFIX = re.compile(rf"(?:(?:{_ENDINGS})(?:{_PACKED})?|\.[a-z0-9]{{1,10}})\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Upload:
    """A file that has arrived. ``key`` names it below the folder of uploads."""

    key: str
    path: Path
    size_bytes: int

    @property
    def name(self) -> str:
        return self.path.name


class Uploads:
    """The files that viewers have sent."""

    def __init__(self, folder: Path):
        self.folder = folder

    def most_bytes(self) -> int:
        """The largest file that there is room for."""
        return max(0, (free_bytes(self.folder) - MARGIN_BYTES) // COPIES)

    def require_room(self, name: str, wanted: int, most: int) -> None:
        """Raise PreconditionFailed for a file that is too large for the disk."""
        if wanted > most:
            raise PreconditionFailed(
                f"{name} has {size(wanted)}, and the disk of {self.folder.parent} has room for a file of {size(most)} "
                "and its rows: make room there, or give a smaller file."
            )

    async def receive(self, pieces: AsyncIterator[bytes], name: str, expected_bytes: int | None = None) -> Upload:
        """Write a file as it arrives. Nothing is left of one that does not arrive to its end.

        Raises PreconditionFailed for one that is too large.
        """
        name, most, count = safe_name(name), self.most_bytes(), 0
        self.require_room(name, expected_bytes or 0, most)
        folder = self._new_folder()
        is_whole = False
        try:
            with home_errors(folder), (folder / name).open("xb") as file:
                waiting = bytearray()
                async for piece in pieces:
                    count += len(piece)
                    self.require_room(name, count, most)
                    waiting += piece
                    if len(waiting) >= PIECE_BYTES:
                        await run_in_threadpool(file.write, bytes(waiting))
                        waiting.clear()
                await run_in_threadpool(file.write, bytes(waiting))
            is_whole = True
        finally:
            if not is_whole:
                shutil.rmtree(folder, ignore_errors=True)
        return Upload(f"{folder.name}/{name}", folder / name, count)

    def write(self, text: str, name: str) -> Upload:
        """A small file that the page itself has made."""
        folder, name = self._new_folder(), safe_name(name)
        with home_errors(folder):
            (folder / name).write_text(text, encoding="utf-8")
        return Upload(f"{folder.name}/{name}", folder / name, len(text.encode()))

    def find(self, key: str) -> Upload:
        """Raises PreconditionFailed for a file that was removed."""
        folder, _, name = key.partition("/")
        path = self.folder / folder / name
        if not folder.isalnum() or name != safe_name(name) or not path.is_file():
            raise PreconditionFailed(f"{name} is no longer here, since files are kept for a day: drop it again.")
        return Upload(key, path, path.stat().st_size)

    def remove(self, key: str) -> None:
        folder = key.partition("/")[0]
        if folder.isalnum():
            shutil.rmtree(self.folder / folder, ignore_errors=True)

    def remove_old(self, in_use: Collection[str]) -> None:
        """Remove files that came over a day ago; the keys ``in_use`` stay."""
        busy = {key.partition("/")[0] for key in in_use}
        for folder in self.folder.iterdir() if self.folder.is_dir() else ():
            try:
                is_old = time.time() - folder.stat().st_mtime > KEPT_S
            except FileNotFoundError:
                continue
            if is_old and folder.name not in busy:
                shutil.rmtree(folder, ignore_errors=True)

    def _new_folder(self) -> Path:
        folder = self.folder / secrets.token_hex(8)
        with home_errors(self.folder):
            folder.mkdir(parents=True, mode=0o700)
        return folder


def safe_name(name: str) -> str:
    """The last part of a path, without what a file system, a terminal or a shell could trip over; never empty.

    The ending stays, also of a name that is too long.
    """
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(letter for letter in last if unicodedata.category(letter)[0] != "C" or letter == "\u200d")
    found = _SUFFIX.search(plain)
    suffix = found[0] if found else ""
    stem = plain.removesuffix(suffix).lstrip(".-~ \u200d").rstrip(". ")
    short = stem.encode()[:MOST_STEM_BYTES].decode(errors="ignore").rstrip(". ")
    return f"{short or 'rows'}{suffix}"
