"""The Dockerfile is clean, and installs what its images need: no more, and with everything once `WITHOUT` is empty."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def requirements(*arguments: str) -> set[str]:
    command = [sys.executable, "scripts/requirements.py", *arguments]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def installed_by(stage: str, without: str) -> set[str]:
    """What a stage of packages asks for, its arguments taken from the Dockerfile."""
    text = DOCKERFILE.partition(f"FROM build AS {stage}\n")[2].partition("\nFROM ")[0]
    called = re.search(r"scripts/requirements\.py (.*?)>needed\.txt", text, re.DOTALL)
    assert called is not None
    arguments = called[1].replace("\\\n", " ").replace("${WITHOUT}", without).split()
    return requirements(*(argument.strip("'\"") for argument in arguments))


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("stage", ["judge-packages", "miner-packages"])
def test_reasoning_gym_is_left_out_unless_it_is_asked_for(stage: str) -> None:
    assert installed_by(stage, "") - installed_by(stage, "reasoning-gym") == {"reasoning-gym"}


@pytest.mark.parametrize("file", ["hub.yml", "gpu-4090.yml", "gpu-3090.yml"])
def test_an_empty_variable_asks_for_it(file: str) -> None:
    """``${NAME-default}`` keeps a variable that is set and empty; ``${NAME:-default}`` would not."""
    assert "WITHOUT: ${RATCHET_WITHOUT-reasoning-gym}\n" in (ROOT / "compose" / file).read_text()


def test_an_unknown_place_is_refused() -> None:
    command = [sys.executable, "scripts/requirements.py", "services/miner[gpu"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "is not FOLDER or FOLDER[EXTRA,…]" in found.stderr


def test_only_packages_with_models_ask_for_torch() -> None:
    heavy = {"torch", "transformers", "accelerate", "peft"}
    assert not heavy & (installed_by("judge-packages", "") | installed_by("miner-packages", ""))
    assert heavy <= installed_by("torch-packages", "")


@pytest.mark.parametrize("stage", re.findall(r"FROM build AS (\S+-packages)", DOCKERFILE))
def test_every_package_has_its_pinned_version(stage: str) -> None:
    text = DOCKERFILE.partition(f"FROM build AS {stage}\n")[2].partition("\nFROM ")[0]
    installs = re.findall(r"pip --python \S+ install (.*)", text)
    assert installs
    assert all(line.startswith("-c constraints.txt ") for line in installs)
