"""The content of the images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from ratchet.systems.registry import systems

from tests.support.compose import docker

if TYPE_CHECKING:
    from .conftest import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]

BASE = "python:3.11-slim-bookworm"
LEAN = ("evaluator", "deployer", "miner", "datagen")
MODELS = ("trainer", "evaluator-gpu", "miner-gpu", "serving")
IMAGES = (*LEAN, *MODELS, "web", "flower")
LIMIT_BYTES = 440_000_000
"""Above the base image, for one without models: of this, pyarrow has 104 MB and sympy, which graders use, 50 MB."""
OPTIONAL = {"torch", "transformers", "fastapi", "starlette", "uvicorn", "h11", "jinja2", "pytest"}
"""What modules of the shared package need for which another image is there, or none."""
IMPORT_ALL = """
import importlib, pkgutil, sys
missing = set()
for top in sys.argv[1:]:
    for found in pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}.", onerror=lambda name: None):
        if found.name.endswith(".__main__") or found.name == "ratchet.ledger.migrations.env":
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            missing.add(error.name)
print(*missing)
"""


def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", image))[0]
    return found


def says(image: str, code: str, *arguments: str) -> str:
    hardened = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
    return docker("run", "--rm", *hardened, f"ratchet-test/{image}", "python", "-c", code, *arguments).strip()


@pytest.mark.parametrize("name", [*LEAN, "web"])
def test_an_image_without_models_is_small_and_has_no_torch(prepared: Stack, name: str) -> None:
    assert inspected(f"ratchet-test/{name}")["Size"] - inspected(BASE)["Size"] <= LIMIT_BYTES
    with pytest.raises(AssertionError, match="ModuleNotFoundError: No module named 'torch'"):
        says(name, "import torch")
    with pytest.raises(AssertionError, match="ModuleNotFoundError: No module named 'transformers'"):
        says(name, "import transformers")


@pytest.mark.parametrize("name", LEAN)
def test_an_image_contains_everything_it_needs(prepared: Stack, name: str) -> None:
    assert set(says(name, IMPORT_ALL, "ratchet", name).split()) <= OPTIONAL


def test_the_page_has_what_it_needs_and_knows_every_system(prepared: Stack) -> None:
    packages = (
        "ratchet",
        *{each.do.__module__.partition(".")[0] for system in systems().values() for each in system.lanes},
    )
    assert set(says("web", IMPORT_ALL, *packages).split()) <= {
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "tokenizers",
    }
    assert says("web", "from ratchet.systems import registry; print(*registry.systems())").split() == list(systems())


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_labelled_and_stops_on_sigterm(prepared: Stack, name: str) -> None:
    config = inspected(f"ratchet-test/{name}")["Config"]
    assert (config["User"], config["StopSignal"], config["Entrypoint"]) == ("10001:10001", "SIGTERM", ["tini", "--"])
    assert config["Cmd"][0] in ("python", "celery")
    assert config["Healthcheck"]["Test"][0] == "CMD"
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["title"] == "Ratchet"
    assert labels["licenses"] == "Apache-2.0"
    assert labels.keys() >= {"description", "version", "revision"}


@pytest.mark.parametrize("name", [*LEAN, *MODELS])
def test_an_image_runs_its_system_under_any_user_id(prepared: Stack, name: str) -> None:
    config = inspected(f"ratchet-test/{name}")["Config"]
    assert says(name, "import os; print(os.getuid(), os.getgid())") == "10001 10001"
    if config["Cmd"][2] == "ratchet.worker":
        system = config["Cmd"][3]
        found = f"from ratchet.systems import registry; print(registry.get({system!r}).name)"
        assert says(name, f"import ratchet.worker.main, ratchet.metrics.worker; {found}") == system


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_no_compiler(prepared: Stack, name: str) -> None:
    assert says(name, "import shutil; print([n for n in ('gcc', 'cc', 'make', 'strip') if shutil.which(n)])") == "[]"


def test_images_with_models_share_the_layer_with_torch(prepared: Stack) -> None:
    layers = [inspected(f"ratchet-test/{name}")["RootFS"]["Layers"] for name in MODELS]
    shared = [layer for layer in layers[0] if all(layer in other for other in layers)]
    assert len(shared) >= len(layers[0]) - 2
    assert "2.13.0" in says("trainer", "import torch, trainer; print(torch.__version__)")
