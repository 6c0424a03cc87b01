"""A disk that is small enough to fill up: a tmpfs of its own, where the system lets a test mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

SmallDisk = Callable[..., Path]
"""``small_disk(size_bytes)``, or with ``options`` of mount beside the size; returns the folder it is mounted at."""

FILLING = "filling"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mounts a tmpfs for the length of the test, or skips it where that is not permitted."""
    with ExitStack() as stack:

        def mounted(size_bytes: int, options: str = "rw") -> Path:
            folder = tmp_path / "disk"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},{options}", "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            return folder

        yield mounted


def fill(folder: Path) -> None:
    """Leave no byte free on the disk of a folder."""
    with open(folder / FILLING, "ab", buffering=0) as file:
        for size_bytes in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"\0" * size_bytes):
                    pass
            except OSError:
                continue


def free(folder: Path) -> None:
    """Take away again what ``fill`` has written."""
    (folder / FILLING).unlink()
