"""One run a home: a lock that the kernel frees when its holder dies, with the holder's process id in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ratchet.errors import Refused

NAME = "run.lock"


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Hold the home's lock for the block. Raises Refused, naming the other process, while one runs."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / NAME, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"a run is going on in {home} already (process {_pid(home)}): `ratchet watch` shows it, "
                "`ratchet stop` ends it."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(home: Path) -> int | None:
    """The process id of the running one, or None when nothing runs there."""
    try:
        with open(home / NAME, "r+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _pid(home)
    return None


def _pid(home: Path) -> int | None:
    text = (home / NAME).read_text(encoding="ascii").strip()
    return int(text) if text.isdecimal() else None
