"""The script that makes the passwords of the containers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.disk import SmallDisk, fill, free

SCRIPT = Path(__file__).parents[3] / "compose" / "make-secrets"


def test_a_full_disk_leaves_no_empty_password_and_the_next_run_continues(small_disk: SmallDisk) -> None:
    folder = small_disk(262_144)
    fill(folder)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([SCRIPT, folder], check=True, capture_output=True)
    assert [file.name for file in (folder / "secrets").iterdir() if file.name != ".draft"] == []
    free(folder)
    subprocess.run([SCRIPT, folder], check=True)
    made = {file.name: file.read_text() for file in (folder / "secrets").iterdir()}
    assert {len(text) for name, text in made.items() if name != "redis-exporter"} == {32}
    assert made["redis-monitor"] in made["redis-exporter"]
    subprocess.run([SCRIPT, folder], check=True)
    assert {file.name: file.read_text() for file in (folder / "secrets").iterdir()} == made
