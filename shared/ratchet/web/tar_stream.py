"""A folder as a tar archive that is made while it is sent: its size is known before, and no file is whole in memory.

The archive is not compressed, since weights hardly shrink.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ratchet.errors import PreconditionFailed

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of the archive, with the header that goes before it."""

    header: bytes
    size: int
    path: Path

    @property
    def padding(self) -> int:
        return -self.size % tarfile.BLOCKSIZE


@dataclass(frozen=True)
class TarStream:
    """The files right in a folder, under the folder's name."""

    members: tuple[Member, ...]

    @classmethod
    def of(cls, folder: Path) -> TarStream:
        """Raises PreconditionFailed for a folder that is not there."""
        try:
            files = sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
        except OSError as error:
            raise PreconditionFailed(f"there is no finished export in {folder}; make it again.") from error
        return cls(tuple(_member(folder.name, path) for path in files))

    @property
    def size(self) -> int:
        """Bytes of the whole archive."""
        return sum(len(each.header) + each.size + each.padding for each in self.members) + 2 * tarfile.BLOCKSIZE

    def chunks(self) -> Iterator[bytes]:
        """The archive. Files are opened before the first byte, so that replacing the folder does not disturb it.

        Raises OSError where a file has become shorter: a download that breaks off is noticed, a wrong one is not.
        """
        with ExitStack() as opened:
            files = [opened.enter_context(each.path.open("rb")) for each in self.members]
            for member, file in zip(self.members, files, strict=True):
                yield member.header
                yield from _content(member, file)
                yield b"\0" * member.padding
            yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _content(member: Member, file: IO[bytes]) -> Iterator[bytes]:
    left = member.size
    while left:
        chunk = file.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise OSError(f"{member.path} has become shorter while it was sent.")
        left -= len(chunk)
        yield chunk


def _member(folder: str, path: Path) -> Member:
    status = path.stat()
    info = tarfile.TarInfo(f"{folder}/{path.name}")
    info.size, info.mtime, info.mode = status.st_size, int(status.st_mtime), 0o644
    return Member(info.tobuf(tarfile.PAX_FORMAT), status.st_size, path)
