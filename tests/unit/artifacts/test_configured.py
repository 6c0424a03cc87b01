"""The store that the settings name."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.artifacts.artifact_store import artifact_store
from ratchet.settings import Settings


@pytest.mark.parametrize(("cache_gb", "is_kept"), [(1.0, True), (1e-6, False)])
def test_how_large_the_cache_of_a_remote_store_grows_is_set(tmp_path: Path, cache_gb: float, is_kept: bool) -> None:
    url = f"memory://store-{uuid.uuid4().hex}"

    def store() -> ArtifactStore:
        return artifact_store(Settings(home=tmp_path, artifacts={"url": url, "cache_gb": cache_gb}))

    old = store().publish_lines(["a" * 1000], "batch", {})
    os.utime(old.path, (1e9, 1e9))
    store().publish_lines(["b" * 1000], "batch", {})
    assert old.path.exists() == is_kept
