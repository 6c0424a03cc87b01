"""Broken checkpoints, and those that are only untrained."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from .asking import Spec, records, run


def damaged(checkpoint: Path, folder: Path, damage: Callable[[Path], object]) -> str:
    damage(shutil.copytree(checkpoint, folder))
    return str(folder)


def poison(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def overflow(folder: Path) -> None:
    """Finite weights whose products are not."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"].fill_(torch.finfo(torch.float32).max)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def shrink(folder: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 337', '"vocab_size": 300'))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (poison, "NaN"),
        (overflow, "NaN"),
        (shrink, "wrong vocabulary"),
    ],
)
def test_a_broken_checkpoint_is_a_result(
    spec: Spec, checkpoint: Path, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    result = run(spec(checkpoint=damaged(checkpoint, tmp_path / "damaged", damage)))
    assert says in (result.broken or "")
    assert result.suites == {}


def test_weights_that_differ_from_the_announced_digest_are_broken(spec: Spec) -> None:
    assert "expected" in (run(spec(weights="0" * 64)).broken or "")


def test_an_untrained_model_is_degenerate_but_not_broken(spec: Spec, untrained: Path) -> None:
    result = run(spec(checkpoint=str(untrained)))
    assert result.broken is None
    assert "on 60 of 60 items" in (result.degenerate or "")
    assert {name: suite.n for name, suite in result.suites.items()} == {"eval": 40, "probe": 20}


def test_degenerate_output_after_a_parent_that_answered_is_broken(spec: Spec, untrained: Path) -> None:
    result = run(spec(checkpoint=str(untrained), parent_degenerate=False))
    assert (result.broken or "").startswith("degenerate output: ")
    assert result.suites["eval"].n == 40


def always_says(checkpoint: Path, folder: Path, token: int) -> str:
    """A model whose every state points one way, along which the token lies twice as far as any other."""
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    embedding = tensors["model.embed_tokens.weight"]
    embedding[:] = 1.0
    embedding[token] = 2.0
    tensors["model.norm.weight"].fill_(1.0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize(("says", "fault"), [("<|im_end|>", "empty"), ("7", "repeating")])
def test_a_model_with_empty_or_constant_output_is_broken(
    spec: Spec, checkpoint: Path, tmp_path: Path, says: str, fault: str
) -> None:
    token = AutoTokenizer.from_pretrained(checkpoint).convert_tokens_to_ids(says)
    result = run(spec(checkpoint=always_says(checkpoint, tmp_path / "says", token), parent_degenerate=False))
    assert "on 60 of 60 items" in (result.broken or "")
    assert fault in (result.broken or "") or (fault == "repeating" and "endless" in (result.broken or ""))
    answers = {item["answer"] for item in records(result.suites["eval"])}
    assert answers == ({""} if fault == "empty" else {"7" * 24})


def test_a_model_with_answers_is_not_degenerate(spec: Spec) -> None:
    assert run(spec(parent_degenerate=False)).degenerate is None
