"""The stand-in for S3 of the chaos rounds holds what an artifact store asks of it, and can be away."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.errors import TransientError
from ratchet.settings.stores import ArtifactSettings

from benchmarks.chaos.s3_server import BUCKET, S3Server


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is None, reason="needs s3fs; `make install-dev` brings it")
def test_an_artifact_store_works_on_it_and_waits_while_it_is_away(tmp_path: Path) -> None:
    secret, model = tmp_path / "secret", tmp_path / "model"
    secret.write_text("any")
    model.mkdir()
    (model / "weights & more.bin").write_bytes(bytes(100_000))
    with S3Server(tmp_path / "bucket") as server:
        settings = ArtifactSettings(endpoint=server.url, access_key="any", secret_key_file=secret)
        store = ArtifactStore(f"s3://{BUCKET}/chaos", cache=tmp_path / "cache", options=settings.options)
        published = store.publish(model, "checkpoint", {})
        elsewhere = ArtifactStore(f"s3://{BUCKET}/chaos", cache=tmp_path / "other", options=settings.options)
        assert elsewhere.manifest(published.id) == published.manifest
        assert (elsewhere.fetch(published.id) / "weights & more.bin").read_bytes() == bytes(100_000)
        server.away()
        with pytest.raises(TransientError):
            list(store.ids())
        server.come_back()
        assert list(store.ids()) == [published.id]
        store.delete(published.id)
        assert list(store.ids()) == []
        assert server.keys("") == []
