"""Files that a user names or puts into a folder: opened only if they are regular, and shown under a printable name.

A pipe would block and a device has no end, so a path is checked before it is opened, and again on the descriptor that
is read. No more is read than the file held when it was opened. It does not know what a file contains.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

from ratchet.disk import explain_disk_error, is_forbidden
from ratchet.errors import DataError, RatchetError, SettingsError
from ratchet.printable import printable

TEXT_LIMIT_BYTES = 10_000_000
"""The largest file that is read as a whole, such as settings or a password."""

_BUFFER_BYTES = 1 << 17

_KINDS = (
    (stat.S_ISDIR, "a folder, not a file"),
    (
        stat.S_ISFIFO,
        "a pipe, not a file: write what comes out of it to a file first, as in `zcat rows.gz > rows.jsonl`",
    ),
    (stat.S_ISCHR, "a device, not a file: copy what you want of it to a file first"),
    (stat.S_ISBLK, "a device, not a file: copy what you want of it to a file first"),
    (stat.S_ISSOCK, "a socket, not a file"),
)
_ERRORS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.ELOOP: "a symbolic link that loops",
    errno.ENAMETOOLONG: "its name is too long",
}


def open_regular(path: Path, kind: type[RatchetError] = DataError) -> io.BufferedReader:
    """Open a regular file, or one that a link leads to, for reading bytes.

    Raises ``kind``, naming the path and what is wrong with it, for anything else, and where reading fails later on;
    SettingsError for one that this user may not read, TransientError where its disk fails.
    """
    try:
        _require_regular(os.stat(path), path, kind)  # opening a pipe or a device would have effects already
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _explain(path, error, kind) from error
    except ValueError as error:  # a NUL in the path
        raise kind(f"{printable(path)}: no such file ({error}).") from error
    try:
        found = os.fstat(handle)
        _require_regular(found, path, kind)
    except BaseException:
        os.close(handle)
        raise
    return io.BufferedReader(_Regular(handle, found.st_size, path, kind), _BUFFER_BYTES)


def read_text(path: Path, kind: type[RatchetError] = DataError) -> str:
    """The text of a small UTF-8 file. Raises as ``open_regular`` does, for other encodings and large files too."""
    with open_regular(path, kind) as file:
        content = file.read(TEXT_LIMIT_BYTES + 1)
    if len(content) > TEXT_LIMIT_BYTES:
        raise kind(f"{printable(path)}: more than {TEXT_LIMIT_BYTES:,} bytes; this is probably the wrong file.")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise kind(f"{printable(path)}: not UTF-8 at byte {error.start}.") from error


class _Regular(io.FileIO):
    """Ends where the file ended when it was opened; errors in reading name the file."""

    def __init__(self, handle: int, size_bytes: int, path: Path, kind: type[RatchetError]) -> None:
        super().__init__(handle, "rb")
        self._has_size = size_bytes > 0  # some file systems, and files of the kernel, report no size
        self._limit_bytes = size_bytes or TEXT_LIMIT_BYTES
        self._path, self._kind = path, kind

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        try:
            read = super().readinto(view[: max(0, self._limit_bytes - self.tell())])
        except OSError as error:
            if self._has_size:
                raise _explain(self._path, error, self._kind) from error
            raise self._kind(
                f"{printable(self._path)} cannot be read as a file ({error.strerror}): copy what you want of it first."
            ) from error
        if read is None:
            raise self._kind(f"{printable(self._path)}: it currently has nothing to read.")
        return read

    def read(self, size: int | None = -1) -> bytes:
        return io.RawIOBase.read(self, -1 if size is None else size) or b""

    def readall(self) -> bytes:
        return io.RawIOBase.readall(self) or b""


def _require_regular(found: os.stat_result, path: Path, kind: type[RatchetError]) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    what = next((what for is_kind, what in _KINDS if is_kind(found.st_mode)), "no file")
    raise kind(f"{printable(path)} is {what}.")


def _explain(path: Path, error: OSError, kind: type[RatchetError]) -> RatchetError:
    if (explained := explain_disk_error(error, printable(path))) is not None:
        return explained
    if is_forbidden(error):
        return SettingsError(f"{printable(path)}: user {os.geteuid()} may not read it: give them permission.")
    reason = _ERRORS.get(error.errno or 0) or error.strerror or type(error).__name__
    return kind(f"{printable(path)}: {reason}.")
