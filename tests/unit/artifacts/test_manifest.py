from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError
from ratchet.artifacts import ArtifactStore, Manifest, ManifestFile, weights_digest
from ratchet.errors import ArtifactError


def file(path: str, content: bytes = b"") -> ManifestFile:
    return ManifestFile(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


def test_the_id_depends_on_files_alone_and_not_on_their_order() -> None:
    files = [file("b", b"2"), file("a", b"1")]
    first = Manifest.of(files, "checkpoint", {"job": 1})
    second = Manifest.of(reversed(files), "report", {"job": 2})
    assert first.id == second.id
    assert first.id != Manifest.of([file("b", b"1"), file("a", b"2")], "checkpoint", {}).id


def test_weights_digest_is_that_of_the_top_safetensors() -> None:
    shards = [file("model-2.safetensors", b"2"), file("model-1.safetensors", b"1")]
    others = [file("config.json", b"{}"), file("optimizer/state.safetensors", b"3")]
    lines = "".join(f"model-{n}.safetensors {hashlib.sha256(str(n).encode()).hexdigest()}\n" for n in (1, 2))
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert weights_digest(Manifest.of([*shards, *others], "checkpoint", {})) == expected
    assert weights_digest(Manifest.of(shards, "checkpoint", {})) == expected


def test_an_artifact_without_weights_has_no_weights_digest() -> None:
    with pytest.raises(ArtifactError, match="no whole weights"):
        weights_digest(Manifest.of([file("rows.jsonl")], "batch", {}))


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a"])
def test_paths_outside_the_artifact_are_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="does not lie inside"):
        file(path)


def test_a_newer_manifest_is_refused_by_its_field() -> None:
    text = Manifest.of([file("a")], "report", {}).model_dump_json()
    newer = text.replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(ArtifactError, match="schema_version"):
        Manifest.parse(newer, "manifest.json")


def test_a_published_file_keeps_its_checksum(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"{}\n" * 10)
    manifest = ArtifactStore(str(tmp_path / "store")).publish(source, "batch", {}).manifest
    assert manifest.files == (file("rows.jsonl", b"{}\n" * 10),)
