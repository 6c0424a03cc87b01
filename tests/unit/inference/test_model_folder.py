from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.model_folder import digest_of_sums, weights_digest


def test_the_digest_is_the_hash_of_sorted_names_and_checksums(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"one", b"two"))
    expected = hashlib.sha256(f"a.safetensors {one}\nb.safetensors {two}\n".encode()).hexdigest()
    assert weights_digest(tmp_path) == expected


def test_only_safetensors_of_the_top_folder_count(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = weights_digest(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "optimizer.safetensors").write_bytes(b"state")
    (tmp_path / "config.json").write_text("{}")
    assert weights_digest(tmp_path) == before


def test_a_manifests_sums_give_the_same_digest_as_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    weights = hashlib.sha256(b"weights").hexdigest()
    sums = {"model.safetensors": weights, "state/optimizer.safetensors": "0" * 64, "config.json": "1" * 64}
    assert digest_of_sums(sums) == weights_digest(tmp_path)


def test_a_folder_without_safetensors_has_no_digest(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(BrokenCheckpoint, match="only safetensors"):
        weights_digest(tmp_path)
