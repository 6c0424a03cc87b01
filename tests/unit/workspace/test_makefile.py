"""Plain `make` lists every target with a line of help."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_plain_make_lists_every_target_with_a_help_line() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    listed = dict(re.findall(r"^\s*make (\S+)\s+(\S.*)$", shown, re.MULTILINE))
    assert listed.keys() == targets
    assert {"run", "stop", "reset", "test", "check"} <= targets


def test_every_script_the_makefile_calls_exists() -> None:
    called = re.findall(r"scripts/[\w.]+", (ROOT / "Makefile").read_text())
    assert called
    assert [name for name in called if not (ROOT / name).exists()] == []
