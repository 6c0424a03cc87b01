"""The disk that Ratchet keeps its own small files on: how a file is written whole, and what trouble with the disk is
called. It does not know what stands in a file.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.errors import RatchetError, SettingsError, TransientError

log = logging.getLogger(__name__)

FULL_BYTES = 10_000_000
"""A disk with less counts as full: no log, no batch and no checkpoint is sure to fit."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_AWAY = frozenset({errno.EIO, errno.ESTALE, errno.ENOTCONN})
_TOO_MANY_OPEN = frozenset({errno.EMFILE, errno.ENFILE})
_unwritten: set[Path] = set()
_ELSEWHERE = "name another home (--home or RATCHET_HOME)"


def write_atomically(path: Path, text: str, *, durable: bool = False, mode: int = 0o644) -> None:
    """Replace ``path`` with ``text``. ``durable`` survives a power cut and costs two fsyncs.

    Raises TransientError for a disk that is full or fails; the file is then as it was, and no draft is left.
    """
    with replacing(path, durable=durable, mode=mode) as draft, open(draft, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextmanager
def replacing(path: Path, *, durable: bool = False, mode: int = 0o644) -> Iterator[Path]:
    """An empty file beside ``path`` for the block to write to, which takes the place of ``path`` at its end.

    Readers see the file from before or the whole new one, and so they do after a kill. Raises as ``write_atomically``.
    """
    with disk_trouble(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        draft = Path(name)
        try:
            yield draft
            os.fchmod(handle, mode)
            if durable:
                os.fsync(handle)
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        if durable:
            sync_folder(path.parent)


def write_if_possible(path: Path, text: str) -> None:
    """As ``write_atomically``, for a file that people look at: where it cannot be written, the work goes on without.

    That is logged once until the file is written again, since some are written several times a second.
    """
    try:
        write_atomically(path, text)
    except (OSError, TransientError) as error:
        if path not in _unwritten:
            _unwritten.add(path)
            log.warning("%s cannot be written: %s", path, error)
    else:
        _unwritten.discard(path)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` (new, renamed, removed) survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


@contextmanager
def disk_trouble(folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """A full or failing disk becomes a TransientError that names the folder and the bytes needed."""
    try:
        yield
    except OSError as error:
        if (trouble := _trouble(error, folder, needed_bytes)) is None:
            raise
        raise trouble from error


@contextmanager
def home_trouble(folder: Path) -> Iterator[None]:
    """``disk_trouble``, and a folder that cannot be written to: a SettingsError that says what is in the way."""
    try:
        yield
    except OSError as error:
        if (trouble := explained(error, folder)) is None:
            raise
        raise trouble from error


def explained(error: OSError, folder: Path) -> RatchetError | None:
    """What to raise in the place of an error that comes from the disk of a folder; None for any other error."""
    if (trouble := _trouble(error, folder)) is not None:
        return trouble
    place = error.filename or folder
    if error.errno in (errno.EACCES, errno.EPERM):
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


def _trouble(error: OSError, folder: Path, needed_bytes: int | None = None) -> TransientError | None:
    if is_full(error):
        needed = "" if needed_bytes is None else f" {needed_bytes:,} bytes are needed,"
        return TransientError(
            f"The disk of {folder} takes no more:{needed} {free_bytes(folder):,} are free ({error.strerror}). "
            "Make room, or lower retention.checkpoints_gb; workers then go on by themselves."
        )
    if error.errno == errno.EROFS:
        return TransientError(
            f"The disk of {folder} is mounted read-only, so nothing can be written there. Mount it for writing, or "
            f"{_ELSEWHERE}."
        )
    if error.errno in _TOO_MANY_OPEN:
        return TransientError(f"{error.strerror}: raise the limit (`ulimit -n`, or nofile of the container).")
    if error.errno in _AWAY:
        place = f" ({error.filename})" if error.filename else ""
        return TransientError(
            f"The disk of {folder} fails: {error.strerror}{place}. Look at `dmesg` and its mount; workers try again by "
            "themselves."
        )
    return None


def require_writable(folder: Path) -> None:
    """Raise, as ``home_trouble`` does, unless the folder, or where it is to be made, takes a byte."""
    with home_trouble(folder), tempfile.TemporaryFile(dir=existing(folder), buffering=0) as file:
        file.write(b"\0")


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there and may be looked at."""
    return next(place for place in (folder, *folder.parents) if os.path.exists(place))
