"""One run a home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ratchet.errors import PreconditionFailed, SettingsError, TransientError
from ratchet.run import run_lock

from tests.support.disk import SmallDisk, fill, free

HOLD = """
import pathlib, sys
from ratchet.run import run_lock
with run_lock.hold_home(pathlib.Path(sys.argv[1])):
    print(1, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    return process


def test_a_second_run_is_refused_and_names_the_first(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    assert run_lock.find_run(tmp_path) == run_lock.RunHolder(other.pid)
    with pytest.raises(PreconditionFailed, match=f"process {other.pid}"), run_lock.hold_home(tmp_path):
        pass
    other.communicate()
    with run_lock.hold_home(tmp_path):
        assert (tmp_path / run_lock.LOCK_FILE).read_text() == str(os.getpid())


def test_a_killed_run_leaves_no_lock_behind(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert run_lock.find_run(tmp_path) is None


def test_a_missing_home_is_not_locked(tmp_path: Path) -> None:
    assert run_lock.find_run(tmp_path / "nowhere") is None
    assert run_lock.find_run(Path(__file__)) is None


@pytest.mark.parametrize("text", [b"", b"\0\0\0", b"\xff"])
def test_a_lock_without_a_process_id_still_counts(tmp_path: Path, other: subprocess.Popen[bytes], text: bytes) -> None:
    (tmp_path / run_lock.LOCK_FILE).write_bytes(text)
    assert run_lock.find_run(tmp_path) == run_lock.RunHolder(None)
    with (
        pytest.raises(PreconditionFailed, match=r"a process that run\.lock does not name"),
        run_lock.hold_home(tmp_path),
    ):
        pass
    other.communicate()
    assert run_lock.find_run(tmp_path) is None


def test_a_full_disk_refuses_only_this_run_with_one_sentence(small_disk: SmallDisk) -> None:
    home = small_disk(65_536) / "home"
    home.mkdir()
    fill(home)
    with pytest.raises(TransientError, match=f"The disk of {home} is full: 0 are free"), run_lock.hold_home(home):
        pass
    assert run_lock.find_run(home) is None
    free(home)
    with run_lock.hold_home(home):
        assert (home / run_lock.LOCK_FILE).read_text() == str(os.getpid())


def test_an_unusable_home_is_refused_with_one_sentence(tmp_path: Path, small_disk: SmallDisk) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"{tmp_path}/file is a file"), run_lock.hold_home(tmp_path / "file"):
        pass
    with (
        pytest.raises(TransientError, match="mounted read-only"),
        run_lock.hold_home(small_disk(65_536, "ro") / "home"),
    ):
        pass
