"""Arms the points of ``ratchet.failpoint``, at which a process kills itself."""

from __future__ import annotations

from pathlib import Path

from ratchet.failpoint import POINTS


def arm(folder: Path, name: str) -> None:
    """Make the next process that reaches the point die there. Raises ValueError for a point that does not exist."""
    if name not in POINTS:
        raise ValueError(f"no failpoint {name!r}; there are: {', '.join(POINTS)}.")
    (folder / name).touch()
