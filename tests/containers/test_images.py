"""What is in the images, and what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from ratchet.testing.compose import docker

if TYPE_CHECKING:
    from .conftest import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

BASE = "python:3.11-slim-bookworm"
LEAN = ("evaluator", "deployer", "miner", "datagen")
MODELS = ("trainer", "evaluator-gpu", "miner-gpu", "serving")
LIMIT_BYTES = {"evaluator": 250_000_000, "deployer": 250_000_000, "datagen": 250_000_000, "miner": 290_000_000}
"""Above the base image. The miner has tokenizers and near-duplicate search beside scipy."""


def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def says(image: str, code: str) -> str:
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
    return docker("run", "--rm", *hardened, f"ratchet-test/{image}", "python", "-c", code).strip()


@pytest.mark.parametrize("name", LEAN)
def test_an_image_without_models_is_small_and_has_no_torch(prepared: Stack, name: str) -> None:
    above = inspected(f"ratchet-test/{name}")["Size"] - inspected(BASE)["Size"]
    assert above <= LIMIT_BYTES[name]
    probe = "import importlib.util as u; print([n for n in ('torch', 'transformers') if u.find_spec(n)])"
    assert says(name, probe) == "[]"


@pytest.mark.parametrize("name", [*LEAN, *MODELS])
def test_an_image_runs_its_system_as_nobody_in_particular(prepared: Stack, name: str) -> None:
    config = inspected(f"ratchet-test/{name}")["Config"]
    assert (config["User"], config["StopSignal"], config["Entrypoint"]) == ("10001:10001", "SIGTERM", ["tini", "--"])
    assert config["Labels"]["org.opencontainers.image.title"] == "Ratchet"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    if config["Cmd"][2] == "ratchet.worker":
        system = config["Cmd"][3]
        found = f"from ratchet.systems import registry; print(registry.get({system!r}).name)"
        assert says(name, f"import ratchet.worker.main, ratchet.metrics.serve; {found}") == system


@pytest.mark.parametrize("name", [*LEAN, *MODELS])
def test_an_image_has_no_compiler(prepared: Stack, name: str) -> None:
    assert says(name, "import shutil; print([n for n in ('gcc', 'cc', 'make', 'strip') if shutil.which(n)])") == "[]"


def test_images_with_models_share_the_layer_with_torch(prepared: Stack) -> None:
    layers = [inspected(f"ratchet-test/{name}")["RootFS"]["Layers"] for name in MODELS]
    shared = [layer for layer in layers[0] if all(layer in other for other in layers)]
    assert len(shared) >= len(layers[0]) - 2
    assert "2.13.0" in says("trainer", "import torch, trainer; print(torch.__version__)")
