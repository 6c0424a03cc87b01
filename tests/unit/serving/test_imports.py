from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["scipy", "torch", "transformers"]
MODULES = [
    "ratchet.serving.client",
    "ratchet.serving.server",
    "ratchet.inference.http_generator",
    "ratchet.inference.prompt_format",
    "ratchet.inference.model_folder",
    "ratchet.evaluation.answer_suites",
    "deployer.canary",
]
PROBE = """
import importlib, json, sys
found = {}
for name in MODULES:
    importlib.import_module(name)
    found[name] = [heavy for heavy in HEAVY if heavy in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The heavy packages that are loaded after the import of each module, in one process that imports all in turn."""
    code = f"MODULES, HEAVY = {MODULES!r}, {HEAVY!r}{PROBE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_the_client_can_be_imported_without_torch(loaded: dict[str, list[str]], module: str) -> None:
    assert loaded[module] == []
