"""The Dockerfile passes hadolint, and installs exactly what its images need; with an empty `WITHOUT`, everything."""

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


def text_of(stage: str) -> str:
    """The instructions of a stage."""
    found = re.search(rf"^FROM \S+ AS {stage}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def installed_by(stage: str, without: str) -> set[str]:
    """The requirements of a stage of packages, with the arguments of the Dockerfile."""
    called = re.search(r"scripts/requirements\.py (.*?)>needed\.txt", text_of(stage), re.DOTALL)
    assert called is not None
    arguments = called[1].replace("\\\n", " ").replace("${WITHOUT}", without).split()
    return requirements(*(argument.strip("'\"") for argument in arguments))


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.mark.parametrize("stage", ["judge-packages", "miner-packages", "web-packages"])
def test_reasoning_gym_is_left_out_unless_it_is_asked_for(stage: str) -> None:
    assert installed_by(stage, "") - installed_by(stage, "reasoning-gym") == {"reasoning-gym"}


@pytest.mark.parametrize("file", ["hub.yml", "gpu-4090.yml", "gpu-3090.yml"])
def test_an_empty_without_variable_includes_reasoning_gym(file: str) -> None:
    """``${NAME-default}`` keeps a variable that is set and empty; ``${NAME:-default}`` would not."""
    assert "WITHOUT: ${RATCHET_WITHOUT-reasoning-gym}\n" in (ROOT / "compose" / file).read_text()


def test_an_unknown_target_is_refused() -> None:
    command = [sys.executable, "scripts/requirements.py", "services/miner[gpu"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "is not FOLDER or FOLDER[EXTRA,…]" in found.stderr


def test_only_packages_with_models_ask_for_torch() -> None:
    heavy = {"torch", "transformers", "accelerate", "peft"}
    light = ("judge-packages", "miner-packages", "web-packages")
    assert not any(heavy & installed_by(stage, "") for stage in light)
    assert heavy <= installed_by("torch-packages", "")


@pytest.mark.parametrize("stage", [*re.findall(r"FROM \S+ AS (\S+-packages)", DOCKERFILE), "torch-alone"])
def test_every_package_has_its_pinned_version(stage: str) -> None:
    installs = re.findall(r"pip --python \S+ install (.*)", text_of(stage))
    pins = "constraints-torch.txt" if stage == "torch-alone" else "constraints.txt"
    assert installs
    assert all(f"-c {pins} " in line for line in installs)


def test_the_layer_with_torch_rests_on_nothing_but_its_own_pins() -> None:
    """A change of any other pin, or of a pyproject.toml, does not rebuild the layer."""
    assert re.findall(r"^COPY (?!--from)(.*) \S+$", text_of("tools") + text_of("torch-alone"), re.MULTILINE) == [
        "constraints-torch.txt"
    ]
    assert "COPY --from=torch-alone /opt/ratchet /opt/ratchet\n" in text_of("torch")
