"""Writes small files atomically: readers see either the old or the new file, even after a kill.

It does not know what a file contains, or how disk errors are explained (see ratchet.disk).
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.disk import disk_errors
from ratchet.errors import TransientError

log = logging.getLogger(__name__)

_READABLE, _OWNER = 0o644, 0o700
_NOT_FOR_FOLDERS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF})
_WITHOUT_MODES = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})

_unwritten: set[Path] = set()


def atomic_write(path: Path, text: str, *, durable: bool = False, mode: int | None = None) -> None:
    """Replace ``path`` with ``text``. ``durable`` survives a power cut and costs two fsyncs.

    Without a ``mode`` others can read the file if they can list its folder.

    Raises TransientError for a disk that is full or fails; the file is then as it was, and no draft is left.
    """
    with (
        atomic_replace(path, durable=durable, mode=mode) as draft,
        open(draft, "w", encoding="utf-8", newline="\n") as file,
    ):
        file.write(text)


@contextmanager
def atomic_replace(path: Path, *, durable: bool = False, mode: int | None = None) -> Iterator[Path]:
    """An empty file beside ``path`` for the block to write to, which replaces ``path`` at its end.

    Raises as ``atomic_write`` does.
    """
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        draft = Path(name)
        try:
            yield draft
            if mode is None:
                try_chmod(handle, _READABLE & (_OWNER | path.parent.stat().st_mode))
            else:  # a password, say, which must not be readable where modes cannot be set
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


def write_best_effort(path: Path, text: str) -> None:
    """``atomic_write`` for a file that is only for information: an error is logged and not raised.

    An error is logged only once until the file is written again, since some are written several times a second.
    """
    try:
        atomic_write(path, text)
    except (OSError, TransientError) as error:
        if path not in _unwritten:
            _unwritten.add(path)
            log.warning("%s cannot be written: %s", path, error)
    else:
        _unwritten.discard(path)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` (new, renamed, removed) survive a power cut, where its file system can do that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)


def try_chmod(handle: int, mode: int) -> None:
    """Set the mode of an open file, where its file system has modes: a drive of Windows or of a server has none."""
    try:
        os.fchmod(handle, mode)
    except OSError as error:
        if error.errno not in _WITHOUT_MODES:
            raise
