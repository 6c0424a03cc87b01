"""Turns operating-system errors of a disk into Ratchet's errors with a remedy, measures free space, and keeps what
Ratchet writes from other users of the machine.

A full or failing disk is a transient error, which workers retry. A folder that is not writable is a wrong setting.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.errors import RatchetError, SettingsError, TransientError

FULL_BYTES = 10_000_000
"""A disk with less free space counts as full: even a log or a batch may not fit."""

MOUNTS = Path("/proc/self/mounts")

_ESCAPED = re.compile(r"\\([0-7]{3})")
_PRIVATE = 0o700
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FAILING = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN})
_TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})
_ELSEWHERE = "name another home (--home or RATCHET_HOME)"


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


@contextmanager
def disk_errors(folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """A full or failing disk becomes a TransientError that names the folder and the bytes needed."""
    try:
        yield
    except OSError as error:
        if (explained := explain_disk_error(error, folder, needed_bytes)) is None:
            raise
        raise explained from error


@contextmanager
def home_errors(folder: Path) -> Iterator[None]:
    """As ``disk_errors``; in addition a folder that is not writable becomes a SettingsError with the reason."""
    try:
        yield
    except OSError as error:
        if (explained := explain_home_error(error, folder)) is None:
            raise
        raise explained from error


def explain_home_error(error: OSError, folder: Path) -> RatchetError | None:
    """The error to raise instead of an OSError on a folder that Ratchet writes to; None for other errors."""
    if (explained := explain_disk_error(error, folder)) is not None:
        return explained
    place = error.filename or folder
    if is_forbidden(error):
        return SettingsError(
            f"{place}: user {os.geteuid()} has no permission ({error.strerror}). Give them permission, or {_ELSEWHERE}."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        blocker = next((there for there in (folder, *folder.parents) if os.path.isfile(there)), place)
        return SettingsError(
            f"{blocker} is a file where a folder is needed ({error.strerror}). Move it away, or {_ELSEWHERE}."
        )
    if error.errno == errno.EISDIR:
        return SettingsError(f"{place} is a folder where a file of Ratchet's belongs. Move it away, or {_ELSEWHERE}.")
    return None


def explain_disk_error(error: OSError, place: Path | str, needed_bytes: int | None = None) -> TransientError | None:
    """The error to raise instead of an OSError that the disk of ``place`` causes; None for other errors."""
    if is_full(error):
        needed = "" if needed_bytes is None else f" {needed_bytes:,} bytes are needed,"
        return TransientError(
            f"The disk of {place} is full:{needed} {free_bytes(Path(place)):,} are free ({error.strerror}). "
            "Make room, or lower retention.checkpoints_gb; workers then continue automatically."
        )
    if error.errno == errno.EROFS:
        return TransientError(
            f"The disk of {place} is mounted read-only, so nothing can be written there. Mount it for writing, or "
            f"{_ELSEWHERE}."
        )
    if error.errno in _TOO_MANY_OPEN:
        return TransientError(f"{error.strerror}: raise the limit (`ulimit -n`, or nofile of the container).")
    if error.errno in _FAILING:
        file = f" ({error.filename})" if error.filename else ""
        return TransientError(
            f"The disk of {place} fails: {error.strerror}{file}. Check `dmesg` and its mount; workers try again by "
            "themselves."
        )
    return None


def is_forbidden(error: OSError) -> bool:
    return error.errno in (errno.EACCES, errno.EPERM)


def keep_private(home: Path) -> None:
    """Create the home for this user alone if it is missing; what this process creates from now on only they can read.

    A home that its group may write to is shared with the group on purpose, so the group keeps its access. Raises as
    ``home_errors`` does.
    """
    with home_errors(home):
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=_PRIVATE, exist_ok=True)
        hidden = 0o007 if home.stat().st_mode & stat.S_IWGRP else 0o077
    os.umask(os.umask(hidden) | hidden)


def private_folder(folder: Path) -> None:
    """Create a folder that only this user can enter, or the group too if it may write to the folder's parent."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=_PRIVATE)
    if folder.parent.stat().st_mode & stat.S_IWGRP:
        folder.chmod(_PRIVATE | stat.S_IRWXG)


def others_may_enter(folder: Path) -> bool:
    """Whether users of other groups can list or enter the folder."""
    return folder.is_dir() and bool(folder.stat().st_mode & (stat.S_IROTH | stat.S_IXOTH))


REMOTE = frozenset({"cifs", "fuse.sshfs", "nfs", "nfs4", "smb3", "smbfs"})
"""File systems of other machines. SQLite's write-ahead log does not work over a network
(https://www.sqlite.org/wal.html), so that processes of several machines would damage the ledger."""
NOT_LOCAL = REMOTE | {"9p", "drvfs", "exfat", "vfat"}
"""With those of drives of Windows, on which locks cannot be relied on."""


def mounted() -> list[tuple[str, str]]:
    """The mount points of this machine with the types of their file systems; empty where Linux does not list them.

    Read without psutil, whose import would take a tenth of the time of a command. The format is that of fstab(5).
    """
    try:
        lines = os.fsdecode(MOUNTS.read_bytes()).split("\n")
    except OSError:
        return []
    fields = (line.split(" ") for line in lines if line)
    return [(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), point), kind) for _, point, kind, *_ in fields]


def require_local(folder: Path) -> None:
    """Raise SettingsError if an SQLite file in the folder would lie on a disk of another machine."""
    kind = file_system(folder, mounted())
    if kind in REMOTE:
        raise SettingsError(
            f"{folder} is on a file system of type {kind}, of another machine, where SQLite would damage the ledger: "
            f"{_ELSEWHERE}, or set ledger.url to a PostgreSQL."
        )


def file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The type of the file system of a folder. ``mounts`` are the mount points with their types."""
    place = nearest_existing(folder.resolve())
    found = {point: kind for point, kind in mounts if place.is_relative_to(point)}
    return found[max(found, key=len)] if found else ""


def require_writable(folder: Path) -> None:
    """Raise, as ``home_errors`` does, unless the folder, or the place where it is to be created, is writable."""
    with home_errors(folder), tempfile.TemporaryFile(dir=nearest_existing(folder), buffering=0) as file:
        file.write(b"\0")


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(folder)).free


def require_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise TransientError unless the disk of a folder has room for ``what``, with FULL_BYTES to spare."""
    free = free_bytes(folder)
    if free < needed_bytes + FULL_BYTES:
        raise TransientError(
            f"{what} takes {needed_bytes:,} bytes, and the disk of {folder} has {free:,} free: make room there."
        )


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists and is accessible."""
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))
