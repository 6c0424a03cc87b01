"""`ratchet run` on a full disk, and on the same disk with free space again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from ratchet.run import run_lock

from tests.support.disk import SmallDisk, fill, free

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE_S = 600.0
"""Only ends a test that hangs."""
SMALL = {"SERVING__PORT": "0", "METRICS__PORT": "0", "SUITES__PROBE_ITEMS": "20", "SUITES__EVAL_ITEMS": "20"}


def command(home: Path, arguments: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    told = {f"RATCHET_{name}": value for name, value in SMALL.items()}
    environment = {**os.environ, **told, "RATCHET_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    environment.pop("RATCHET_CONFIG", None)
    code = "from ratchet.cli.main import app; app()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_refused_on_a_full_disk_does_not_block_the_next_one_which_warns(
    tmp_path: Path, small_disk: SmallDisk
) -> None:
    disk = small_disk(400_000_000)
    home = disk / "run"
    fill(disk)
    refused = command(home, ["run"], tmp_path)
    out, err = refused.communicate(timeout=PATIENCE_S)
    assert (refused.returncode, out) == (2, "")
    assert err.startswith(f"ratchet: The disk of {home} is full: 0 are free")
    assert err.count("\n") == 1
    free(disk)

    run = command(home, ["run"], tmp_path)
    try:
        assert run.stdout is not None
        warning = next(line for line in run.stdout if " warning " in line)
        assert f"the disk of {home} is nearly full, with less than 500 MB free: make room" in warning
        assert run_lock.find_run(home) == run_lock.RunHolder(run.pid)
        stopped = command(home, ["stop"], tmp_path)
        said, _ = stopped.communicate(timeout=PATIENCE_S)
        assert "stopped" in said
        out, err = run.communicate(timeout=PATIENCE_S)
        assert (run.returncode, err) == (0, "")
        assert " warning " not in out
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            run.communicate()
