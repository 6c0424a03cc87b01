"""A real vLLM, whose program RATCHET_TEST_VLLM names, behind Ratchet's server. One is started for each checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ratchet.inference.model_folder import weights_digest

from tests.support.adapters import build_adapter
from tests.support.server_processes import Checkpoint, Server, checkpoint, server_processes

PROGRAM = os.environ.get("RATCHET_TEST_VLLM", "")
COMMAND = (
    f"{PROGRAM} serve {{path}} --served-model-name {{name}} --host 127.0.0.1 --port {{port}} --dtype {{dtype}} "
    "--generation-config vllm --max-model-len 512 --enforce-eager"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "vllm" in item.path.parts:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.timeout(1_800))
            item.add_marker(pytest.mark.skipif(not PROGRAM, reason="RATCHET_TEST_VLLM names no vLLM"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Whole weights."""
    return checkpoint(tmp_path_factory.mktemp("checkpoints"), "whole", 3)


@pytest.fixture(scope="session")
def adapted(whole: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Adapters on them."""
    path = build_adapter(tmp_path_factory.mktemp("checkpoints") / "adapted", whole.path)
    return Checkpoint("adapted", path, weights_digest(path))


@pytest.fixture(scope="session")
def server(whole: Checkpoint, adapted: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has loaded both."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with server_processes() as start:
        found = start(tmp_path_factory.mktemp("server") / "home", engine="vllm", vllm_command=COMMAND)
        found.load(whole)
        found.load(adapted)
        yield found


@pytest.fixture(scope="session")
def addresses(server: Server) -> list[tuple[str, str, Path]]:
    """Address, model name and folder of each vLLM process of the server."""
    found = []
    for process in psutil.Process(server.process.pid).children():
        told = process.cmdline()
        if "serve" in told and "--port" in told:
            port, name = told[told.index("--port") + 1], told[told.index("--served-model-name") + 1]
            found.append((f"http://127.0.0.1:{port}", name, Path(told[told.index("serve") + 1])))
    return found
