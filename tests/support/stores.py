"""A fixture for whatever must hold of both kinds of artifact store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from ratchet.artifacts import ArtifactStore


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    """Empty; once on the local disk, once on a remote store, read through a cache."""
    if request.param == "local":
        yield ArtifactStore((tmp_path / "store").as_uri())
        return
    url = f"memory://store-{uuid.uuid4().hex}"
    yield ArtifactStore(url, cache=tmp_path / "cache")
    filesystem, root = fsspec.url_to_fs(url)
    if filesystem.exists(root):
        filesystem.rm(root, recursive=True)
