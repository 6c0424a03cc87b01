"""The benchmark of event latency ends even if its workers fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WITHOUT_FUNCTION = """
from benchmarks.events import latency

latency.SYSTEM = latency.SYSTEM.replace("do=do", "do=None")
latency.main()
"""


def test_the_benchmark_stops_with_the_reason_when_its_workers_fail() -> None:
    command = [sys.executable, "-c", WITHOUT_FUNCTION, "--samples", "2", "--subscribers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "2 handlers were to run at the start of their workers, and did not" in done.stderr
    assert "single@" in done.stderr
    assert "many_0@" in done.stderr
    assert "do of the lane 'look' is None, which is not a function" in done.stderr
