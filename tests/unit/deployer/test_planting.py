"""The planted bad checkpoint is the model with one matrix changed, and complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from deployer.planting import damaged_copy
from ratchet.artifacts import ArtifactStore
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.adapter_folder import BaseReference
from ratchet.inference.model_folder import check_folder, read_header, weights_digest

ROWS = 4


def model_folder(folder: Path, tensors: dict[str, list[bytes]]) -> Path:
    """A model's folder with these tensors of two-byte numbers, given as the bytes of their rows."""
    header, data = {}, b""
    for name, rows in tensors.items():
        joined = b"".join(rows)
        ends = [len(data), len(data) + len(joined)]
        header[name] = {"dtype": "BF16", "shape": [len(rows), len(rows[0]) // 2], "data_offsets": ends}
        data += joined
    head = json.dumps(header).encode()
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    (folder / "config.json").write_text(json.dumps({"vocab_size": ROWS}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def rows_of(folder: Path, name: str) -> list[bytes]:
    file = folder / "model.safetensors"
    entry, content = read_header(file)[name], file.read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :][slice(*entry["data_offsets"])]
    size = len(data) // entry["shape"][0]
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    wide = [bytes([200 + number]) * 16 for number in range(ROWS + 1)]
    return model_folder(tmp_path / "m", {"a": wide, "embed": [bytes([n]) * 4 for n in range(ROWS)], "z": wide})


def test_the_rows_of_the_embedding_are_shifted_and_all_else_is_as_it_was(model: Path, tmp_path: Path) -> None:
    planted = damaged_copy(model, tmp_path / "bad", "drill-1")
    check_folder(tmp_path / "bad")
    right = rows_of(model, "embed")
    assert rows_of(tmp_path / "bad", "embed") == [right[-1], *right[:-1]]
    for name in "az":
        assert rows_of(tmp_path / "bad", name) == rows_of(model, name)
    assert planted.weights == weights_digest(tmp_path / "bad") != weights_digest(model)


def test_its_id_in_the_store_is_known_before_it_is_published(model: Path, tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"))
    good = store.publish(model, "checkpoint", {})
    planted = damaged_copy(store.fetch(good.id), tmp_path / "bad", "drill-1")
    assert store.publish(tmp_path / "bad", "checkpoint", {}, consume=True).id == planted.artifact != good.id
    store.delete(planted.artifact)
    assert store.fetch(good.id).is_dir()
    assert list(store.ids()) == [good.id]


def test_of_adapters_their_base_is_damaged(model: Path, tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    BaseReference.to(model, weights_digest(model), "lora", 2.0).write(adapters)
    planted = damaged_copy(adapters, tmp_path / "bad", "drill-1")
    assert planted == damaged_copy(model, tmp_path / "same", "drill-1")
    assert (model / "model.safetensors").stat().st_nlink == 1


def test_a_model_without_a_matrix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BrokenCheckpoint, match="no weight matrix"):
        damaged_copy(model_folder(tmp_path / "m", {"norm": [b"1234"]}), tmp_path / "bad", "drill-1")
