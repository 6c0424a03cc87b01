from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ratchet.failpoint import POINTS

from tests.support.failpoints import arm

PASS_BY = "from ratchet.failpoint import failpoint; failpoint('after-claim'); print('alive')"


def pass_by(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PASS_BY], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_an_armed_point_kills_exactly_one_process(tmp_path: Path) -> None:
    arm(tmp_path, "after-claim")
    assert pass_by(RATCHET_FAILPOINTS=str(tmp_path)).returncode == -signal.SIGKILL
    assert pass_by(RATCHET_FAILPOINTS=str(tmp_path)).stdout == "alive\n"


def test_without_the_variable_a_point_does_nothing(tmp_path: Path) -> None:
    arm(tmp_path, "after-claim")
    assert pass_by().stdout == "alive\n"
    assert (tmp_path / "after-claim").exists()


def test_only_points_that_exist_can_be_armed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no failpoint 'after-lunch'; there are: {', '.join(POINTS)}"):
        arm(tmp_path, "after-lunch")
