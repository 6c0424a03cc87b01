from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ratchet.profiles.profile import get_profile
from trainer.core import TrainingResult
from trainer.model import add_tokens
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.support.examples import sums, write_examples
from tests.support.tiny_model import build_tiny_model


def roomy(folder: Path, rows: int) -> Path:
    return build_tiny_model(folder / "roomy", vocab_size=rows)


@pytest.mark.parametrize("name", ["emoji_think", "regime3"])
def test_texts_are_one_token_each_where_there_is_room(tmp_path: Path, name: str) -> None:
    texts = get_profile(name).tokens()
    folder = roomy(tmp_path, 337 + len(texts))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    spelled = [tokenizer.encode(text) for text in texts]
    weight = model.get_input_embeddings().weight
    means = [weight[pieces].mean(0).detach().clone() for pieces in spelled]

    assert add_tokens(model, tokenizer, texts)

    assert [tokenizer.encode(text) for text in texts] == [[337 + place] for place in range(len(texts))]
    torch.testing.assert_close(list(weight[337:]), means)
    line = f"so {texts[0]}{texts[1]}, {texts[0]}\n5"
    assert tokenizer.decode(tokenizer.encode(line), skip_special_tokens=True) == line
    before = weight.detach().clone()
    assert add_tokens(model, tokenizer, texts)
    assert torch.equal(weight, before)
    assert len(tokenizer) == 337 + len(texts)


def test_without_room_or_where_rows_do_not_learn_nothing_changes(tmp_path: Path) -> None:
    texts = get_profile("regime3").tokens()
    for rows, learns in ((338, True), (339, False)):
        folder = roomy(tmp_path / str(rows), rows)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        model.requires_grad_(learns)
        assert not add_tokens(model, tokenizer, texts)
        assert len(tokenizer) == 337


def test_a_checkpoint_carries_its_tokens_to_the_next_segment(
    train: Callable[..., TrainingResult], tmp_path: Path
) -> None:
    data = write_examples(tmp_path / "sums.jsonl", sums(48))
    same = {"model__path": str(roomy(tmp_path, 344)), "profile__name": "regime3"}
    whole = train(data, "whole", **same)
    first = train(data, "first", stop_after=3, **same)
    second = train(data, "second", after=first, profile__name="regime3")
    assert second.summary["weights"] == whole.summary["weights"]
    tokenizer = AutoTokenizer.from_pretrained(first.last_checkpoint_path)
    assert len(tokenizer.encode("<<ANS_START>>")) == 1
