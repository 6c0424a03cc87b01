from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ratchet.file_lock import FileLock, is_locked

HOLD = """
import pathlib, sys
from ratchet.file_lock import FileLock
with FileLock.acquire(pathlib.Path(sys.argv[1])) as lock:
    print(1, flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    return process


@pytest.mark.parametrize("name", ["lock", "folder"])
def test_one_process_holds_a_lock_until_it_is_killed(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / name
    other = hold(path)
    assert FileLock.try_acquire(path) is None
    assert is_locked(path)
    other.kill()
    other.communicate()
    assert not is_locked(path)
    lock = FileLock.try_acquire(path)
    assert lock is not None
    lock.release()


def test_a_released_lock_is_free_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock.acquire(path) as lock:
        lock.write("a long text")
        lock.write("short")
        assert FileLock.try_acquire(path) is None
    lock.release()
    assert path.read_text() == "short"
    with FileLock.acquire(path):
        assert is_locked(path)


def test_a_process_that_looks_at_a_lock_does_not_count_as_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    threading.Timer(0.1, os.close, [handle]).start()
    lock = FileLock.try_acquire(path)
    assert lock is not None
    assert is_locked(path)
    lock.release()


def test_a_lock_file_that_cannot_be_opened_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        FileLock.acquire(tmp_path / "file" / "lock")
    with pytest.raises(FileNotFoundError):
        is_locked(tmp_path / "lock")
