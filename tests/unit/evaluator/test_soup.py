"""Averages of checkpoints: who goes in, what comes out, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from evaluator.soup import ingredients, parts, soup_name
from evaluator.soup_child import average
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.digest import weights_digest
from ratchet.inference.local import LocalGenerator
from ratchet.testing.tiny_model import build_tiny_model
from safetensors.torch import load_file, save_file

ENTRIES = [
    {"checkpoint_id": name, "is_tied_with_best": tied}
    for name, tied in (("c3", True), ("c1", True), ("c2", True), ("c9", False))
]


def test_the_best_of_the_leading_group_go_in() -> None:
    everyone = {"c1", "c2", "c3", "c9"}
    assert ingredients(ENTRIES, everyone, 2) == ("c1", "c3")
    assert ingredients(ENTRIES, everyone, 5) == ("c1", "c2", "c3")
    assert ingredients(ENTRIES, {"c1", "c2"}, 5) == ("c1", "c2")
    assert ingredients(ENTRIES, {"c1", "c9"}, 5) == ()
    assert parts(soup_name(("c1", "c3"))) == ["c1", "c3"]


def test_tensors_are_averaged_and_the_result_is_a_checkpoint(tmp_path: Path) -> None:
    folders = [build_tiny_model(tmp_path / str(seed), seed=seed) for seed in (1, 2, 3)]
    (folders[0] / "manifest.json").write_text("{}")
    into = tmp_path / "soup"
    said = average({"folders": [str(folder) for folder in folders], "into": str(into)}, lambda _: None)
    assert not (into / "manifest.json").exists(), "the store writes its own"
    assert said["weights"] == weights_digest(into) == LocalGenerator.load(into).weights
    soup, *ones = [load_file(folder / "model.safetensors") for folder in (into, *folders)]
    for name, tensor in soup.items():
        torch.testing.assert_close(tensor, torch.stack([one[name] for one in ones]).mean(0))


def test_a_soup_of_the_same_is_the_same(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "one")
    average({"folders": [str(folder)] * 2, "into": str(tmp_path / "soup")}, lambda _: None)
    assert weights_digest(tmp_path / "soup") == weights_digest(folder)


def changed(folder: Path, **tensors: torch.Tensor) -> Path:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **tensors}, file, metadata={"format": "pt"})
    return folder


def test_other_tensors_or_shapes_have_no_average(tmp_path: Path) -> None:
    one, other = (build_tiny_model(tmp_path / name) for name in ("one", "other"))
    asked = {"folders": [str(one), str(other)], "into": str(tmp_path / "soup")}
    changed(other, **{"model.norm.weight": torch.ones(3)})
    with pytest.raises(BrokenCheckpoint, match="different shapes"):
        average(asked, lambda _: None)
    changed(other, more=torch.ones(3))
    with pytest.raises(BrokenCheckpoint, match="do not hold the same tensors: more"):
        average({**asked, "into": str(tmp_path / "again")}, lambda _: None)
