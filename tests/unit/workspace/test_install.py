"""The script that creates the virtual environment, with a Python that only writes down how it is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = """#!/bin/sh
echo "user=$PIP_USER target=${PIP_TARGET-none} prefix=${PIP_PREFIX-none} $*" >>calls
case "$*" in *"import torch"*) exit 1 ;; esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the project that has a virtual environment, which is out of date."""
    for name in ("constraints.txt", "requirements-dev.txt", "scripts/install"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("shared", "services/trainer"):
        (tmp_path / name).mkdir(parents=True)
        shutil.copy(ROOT / name / "pyproject.toml", tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def test_packages_go_into_the_environment_whatever_pip_is_told_elsewhere(folder: Path) -> None:
    elsewhere = {"PIP_USER": "1", "PIP_TARGET": "/elsewhere", "PIP_PREFIX": "/elsewhere"}
    subprocess.run([folder / "scripts" / "install", "run"], env={**os.environ, **elsewhere}, check=True)
    calls = [call for call in (folder / "calls").read_text().splitlines() if " -m pip " in call]
    assert len(calls) >= 3
    assert all(call.startswith("user=0 target=none prefix=none ") for call in calls)


def test_scripts_keep_their_line_ends_in_a_clone_for_windows(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    (tmp_path / "script").write_bytes(b"#!/bin/sh\necho works\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "core.autocrlf=true"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run([*git, "add", "."], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=tmp_path, check=True)
    subprocess.run([*git, "clone", "-q", ".", "there"], cwd=tmp_path, check=True)
    assert (tmp_path / "there" / "script").read_bytes() == b"#!/bin/sh\necho works\n"
