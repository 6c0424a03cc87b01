"""Real servers in their own processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.server_processes import Checkpoint, Server, checkpoint, server_processes


@pytest.fixture(scope="session")
def blue(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("checkpoints"), "blue", 3)


@pytest.fixture(scope="session")
def green(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(tmp_path_factory.mktemp("checkpoints"), "green", 4)


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., Server]]:
    """Starts a server; see ``server_processes``."""
    with server_processes() as run:
        yield run
