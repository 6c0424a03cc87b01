"""Which failures of a disk or a remote store are the surroundings', not the artifact's."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.errors import RatchetError, SurroundingsError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUGS = (AttributeError, NameError, TypeError, AssertionError, NotImplementedError)
"""What no store raises for being away: waited out as trouble of the surroundings, it would be waited out for ever."""

_AWAY = frozenset({errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN, errno.EMFILE, errno.ENFILE})


def is_full(error: OSError) -> bool:
    return error.errno in _FULL


@contextmanager
def disk_trouble(folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """A full or failing disk becomes a SurroundingsError that names the folder and the bytes needed."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            needed = "" if needed_bytes is None else f" {needed_bytes:,} bytes are needed,"
            raise SurroundingsError(
                f"The disk of {folder} takes no more:{needed} {_free_bytes(folder):,} are free "
                f"({error.strerror}). Free some space or lower retention; a worker tries again by itself."
            ) from error
        if error.errno in _AWAY:
            raise SurroundingsError(f"The disk of {folder} fails: {error.strerror} ({error.filename}).") from error
        raise


def _free_bytes(folder: Path) -> int:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free


@contextmanager
def remote_trouble(url: str) -> Iterator[None]:
    """Whatever a remote store raises, except that a file is absent or that the code is wrong, is a SurroundingsError.

    The libraries behind fsspec have error trees of their own, so there is no narrower base to catch.
    """
    try:
        yield
    except (RatchetError, FileNotFoundError, *_BUGS):
        raise
    except Exception as error:
        raise SurroundingsError(
            f"The artifact store {url} is out of reach or refuses: {type(error).__name__}: {error}. "
            "Check its address and credentials; the work is tried again by itself."
        ) from error
