"""One run a home."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ratchet.errors import Refused
from ratchet.run import lock

HOLD = """
import pathlib, sys
from ratchet.run import lock
with lock.held(pathlib.Path(sys.argv[1])):
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
    assert lock.holder(tmp_path) == other.pid
    with pytest.raises(Refused, match=f"process {other.pid}"), lock.held(tmp_path):
        pass
    other.communicate()
    with lock.held(tmp_path):
        assert (tmp_path / lock.NAME).read_text() == str(os.getpid())


def test_a_killed_run_leaves_no_lock_behind(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert lock.holder(tmp_path) is None


def test_nothing_holds_a_home_that_is_not_there(tmp_path: Path) -> None:
    assert lock.holder(tmp_path / "nowhere") is None
