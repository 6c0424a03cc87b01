"""The benchmark of event latency ends in any case, even if its workers fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
WITHOUT_FUNCTION = """
from benchmarks.events import latency

latency.SYSTEM, latency.START_S = latency.SYSTEM.replace("do=do", "do=None"), 15.0
latency.main()
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments, "--samples", "2"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def test_the_benchmark_prints_a_row_for_each_variant() -> None:
    done = run("-m", "benchmarks.events.latency")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.split("\n") if line.startswith("|")]
    assert rows == [
        "way",
        "---",
        "bare Celery, apply_async",
        "topic exchange, one subscriber",
        "ours, one subscriber",
        "topic exchange, each of five",
        "ours, each of five",
    ]
    assert "Ledger commit of an event" in done.stdout


def test_the_benchmark_stops_with_the_reason_when_its_workers_fail() -> None:
    done = run("-c", WITHOUT_FUNCTION)
    assert done.returncode == 1
    assert "6 handlers were to run within 15 s, and did not" in done.stderr
    assert "single@" in done.stderr
    assert "do of the lane 'look' is None, which is not a function" in done.stderr
