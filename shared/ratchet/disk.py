"""What an error of the operating system says about a disk, as one of our errors with the way out; and how much is free.

A full or failing disk is transient: workers try again. A folder that is not ours to write to is a wrong setting.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.errors import RatchetError, SettingsError, TransientError

FULL_BYTES = 10_000_000
"""A disk with less counts as full: no log, no batch and no checkpoint is sure to fit."""

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
    """``disk_errors``, and a folder that cannot be written to: a SettingsError that says what is in the way."""
    try:
        yield
    except OSError as error:
        if (explained := explain_home_error(error, folder)) is None:
            raise
        raise explained from error


def explain_home_error(error: OSError, folder: Path) -> RatchetError | None:
    """What to raise in the place of an error on a folder that we write to; None for an error of another kind."""
    if (explained := explain_disk_error(error, folder)) is not None:
        return explained
    place = error.filename or folder
    if is_forbidden(error):
        return SettingsError(
            f"{place}: user {os.geteuid()} has no right to it ({error.strerror}). Give them the right, or {_ELSEWHERE}."
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
    """What to raise in the place of an error that the disk of ``place`` causes; None for an error of another kind."""
    if is_full(error):
        needed = "" if needed_bytes is None else f" {needed_bytes:,} bytes are needed,"
        return TransientError(
            f"The disk of {place} takes no more:{needed} {free_bytes(Path(place)):,} are free ({error.strerror}). "
            "Make room, or lower retention.checkpoints_gb; workers then go on by themselves."
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
            f"The disk of {place} fails: {error.strerror}{file}. Look at `dmesg` and its mount; workers try again by "
            "themselves."
        )
    return None


def is_forbidden(error: OSError) -> bool:
    return error.errno in (errno.EACCES, errno.EPERM)


def require_writable(folder: Path) -> None:
    """Raise, as ``home_errors`` does, unless the folder, or the place where it is to be made, takes a byte."""
    with home_errors(folder), tempfile.TemporaryFile(dir=nearest_existing(folder), buffering=0) as file:
        file.write(b"\0")


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(folder)).free


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists and may be looked at."""
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))
