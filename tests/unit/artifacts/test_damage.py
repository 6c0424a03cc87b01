"""Half-written, truncated, altered and missing artifacts are refused, by the name of the file."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.artifacts.remote_artifacts import remote_errors
from ratchet.errors import ArtifactError, TransientError

Damage = Callable[[Path], None]
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(os.urandom(5000))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri())


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def truncate(folder: Path) -> None:
    rewrite(folder / WEIGHTS, (folder / WEIGHTS).read_bytes()[:-1])


def alter(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[100] ^= 1
    rewrite(folder / WEIGHTS, bytes(content))


def alter_in_place(folder: Path) -> None:
    (folder / WEIGHTS).chmod(0o644)
    with open(folder / WEIGHTS, "r+b") as file:
        file.write(b"other weights")


def lose(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def add_a_stranger(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def alter_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["size_bytes"] += 1
    rewrite(folder / "manifest.json", json.dumps(manifest).encode())


def cut_manifest(folder: Path) -> None:
    rewrite(folder / "manifest.json", (folder / "manifest.json").read_bytes()[:40])


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def point_outside(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["path"] = "../secret"
    rewrite(folder / "manifest.json", json.dumps(manifest).encode())


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (truncate, WEIGHTS),
        (alter, WEIGHTS),
        (alter_in_place, WEIGHTS),
        (lose, WEIGHTS),
        (add_a_stranger, "adapter_config.json"),
        (alter_manifest, "manifest.json"),
        (cut_manifest, "manifest.json"),
        (lose_manifest, "manifest.json"),
        (point_outside, "manifest.json"),
    ],
)
def test_a_damaged_artifact_is_refused_by_name_until_it_is_published_again(
    store: ArtifactStore, model: Path, damage: Damage, named: str
) -> None:
    artifact = store.publish(model, "checkpoint", {})
    store.fetch(artifact.id)
    damage(artifact.path)
    for reader in (store, ArtifactStore(store.url)):
        with pytest.raises(ArtifactError, match=named):
            reader.fetch(artifact.id)
    assert store.publish(model, "checkpoint", {}).id == artifact.id
    assert (store.fetch(artifact.id) / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_a_folder_under_a_wrong_id_is_refused(store: ArtifactStore, model: Path) -> None:
    artifact = store.publish(model, "checkpoint", {})
    other = "0" * 64
    artifact.path.rename(artifact.path.with_name(other))
    with pytest.raises(ArtifactError, match=artifact.id):
        store.fetch(other)


def test_a_damaged_remote_artifact_is_refused_and_not_cached(model: Path, tmp_path: Path) -> None:
    url = f"memory://store-{uuid.uuid4().hex}"
    artifact = ArtifactStore(url, cache=tmp_path / "cache").publish(model, "checkpoint", {})
    filesystem, root = fsspec.url_to_fs(url)
    filesystem.pipe_file(f"{root}/{artifact.id}/{WEIGHTS}", b"x" * 5000)
    reader = ArtifactStore(url, cache=tmp_path / "other")
    with pytest.raises(ArtifactError, match=WEIGHTS):
        reader.fetch(artifact.id)
    filesystem.rm(f"{root}/{artifact.id}/{WEIGHTS}")
    with pytest.raises(ArtifactError, match=f"{WEIGHTS} is damaged: it is missing"):
        reader.fetch(artifact.id)
    assert not (tmp_path / "other" / artifact.id).exists()


def test_a_damaged_cached_artifact_is_fetched_again(model: Path, tmp_path: Path) -> None:
    store = ArtifactStore(f"memory://store-{uuid.uuid4().hex}", cache=tmp_path / "cache")
    artifact = store.publish(model, "checkpoint", {})
    alter(artifact.path)
    assert (store.fetch(artifact.id) / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def test_an_unreachable_remote_is_a_transient_error() -> None:
    with pytest.raises(TransientError, match="s3://bucket"), remote_errors("s3://bucket"):
        raise TimeoutError("no answer")


def test_a_programming_error_is_not_retried() -> None:
    with pytest.raises(TypeError, match="not a path"), remote_errors("s3://bucket"):
        raise TypeError("not a path")
