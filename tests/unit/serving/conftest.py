"""Two checkpoints, and a server in this process over them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from ratchet.inference.model_folder import weights_digest
from ratchet.serving.app import build_app
from ratchet.serving.engine import model_loader
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.server_home import StateFile
from ratchet.settings import Settings
from ratchet.settings.serving import ServingSettings

from tests.support.tiny_model import build_tiny_model

TOKEN = "the admin token"
ADMIN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="session")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("blue") / "model", seed=3, initializer_range=0.3)


@pytest.fixture(scope="session")
def green(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("green") / "model", seed=4, initializer_range=0.3)


@pytest.fixture
def make_fleet(tmp_path: Path) -> Iterator[Callable[..., ModelManager]]:
    """Fleets over one home, as one restarted server after the other would have them."""
    fleets: list[ModelManager] = []

    def make(**settings: Any) -> ModelManager:
        fleets.append(ModelManager(ServingSettings(**settings), StateFile(tmp_path), model_loader(Settings())))
        return fleets[-1]

    yield make
    for manager in fleets:
        manager.close()


@pytest.fixture
def serve(make_fleet: Callable[..., ModelManager]) -> Iterator[Callable[..., TestClient]]:
    """A client of a server with these settings."""
    clients: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        app = build_app(make_fleet(**settings), ServingSettings(**settings), SecretStr(TOKEN))
        clients.append(TestClient(app, raise_server_exceptions=True))
        clients[-1].__enter__()
        return clients[-1]

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def go_live() -> Callable[[TestClient, Path, str, int], None]:
    """Load a folder and make it live."""

    def go(client: TestClient, folder: Path, checkpoint_id: str = "cp-1", token: int = 1) -> None:
        load = {"checkpoint_id": checkpoint_id, "path": str(folder), "weights": weights_digest(folder)}
        client.post("/admin/load", json=load, headers=ADMIN).raise_for_status()
        switch = {"checkpoint_id": checkpoint_id, "fencing_token": token}
        client.post("/admin/switch", json=switch, headers=ADMIN).raise_for_status()

    return go
