"""What is computed on padded, sliced, unmasked batches is what each row by itself would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ratchet.inference.tiny_tokenizer import build_tiny_tokenizer
from ratchet.profiles import registry
from ratchet.testing.examples import sums, write_examples
from torch.nn.functional import cross_entropy
from trainer.collator import collate
from trainer.dataset import Row, examples_of, prepare_rows
from transformers import AutoModelForCausalLM


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, ...]:
    path = write_examples(tmp_path_factory.mktemp("rows") / "sums.jsonl", sums(6, longest=9))
    prepared = prepare_rows(
        examples_of(path), registry.get("plain"), build_tiny_tokenizer(), system_prompt="", max_length=512
    )
    return prepared.rows


@torch.no_grad()
def test_a_padded_batch_has_the_loss_of_its_rows_one_by_one(rows: tuple[Row, ...], base_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model).eval()
    batch = collate(rows, pad_id=0)
    logits = model(input_ids=batch.inputs, logits_to_keep=batch.keep).logits.flatten(0, 1)[batch.positions]
    together = cross_entropy(logits, batch.targets)

    total = 0.0
    for row in rows:
        labels = np.where(row.trained, row.ids, -100).astype(np.int64)
        one = model(input_ids=torch.from_numpy(row.ids[None].astype(np.int64)), labels=torch.from_numpy(labels[None]))
        total += float(one.loss) * int(row.trained.sum())
    assert float(together) == pytest.approx(total / batch.trained_tokens, rel=1e-5)


@torch.no_grad()
def test_the_content_of_the_padding_is_no_matter(rows: tuple[Row, ...], base_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model).eval()
    batches = [collate(rows, pad_id=pad) for pad in (0, 100)]
    outputs = [model(input_ids=b.inputs, logits_to_keep=b.keep).logits.flatten(0, 1)[b.positions] for b in batches]
    assert torch.equal(outputs[0], outputs[1])


def test_a_share_without_rows_trains_nothing() -> None:
    empty = collate([], pad_id=0)
    assert (empty.trained_tokens, empty.tokens, empty.inputs.shape, empty.keep) == (0, 0, (1, 1), 1)
