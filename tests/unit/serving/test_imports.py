from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "scipy"}


@pytest.mark.parametrize(
    "module",
    [
        "ratchet.serving.client",
        "ratchet.serving.server",
        "ratchet.inference.http_generator",
        "ratchet.inference.prompt_format",
        "ratchet.inference.model_folder",
        "ratchet.evaluation.answer_suites",
        "deployer.canary",
    ],
)
def test_the_client_can_be_imported_without_torch(module: str) -> None:
    code = f"import sys, {module}; print(*({HEAVY} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
