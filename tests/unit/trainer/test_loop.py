"""Padded, packed and sliced batches give the loss and gradients of single rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ratchet.inference.tiny import build_tiny_tokenizer
from ratchet.profiles.profile import get_profile
from torch.nn.functional import cross_entropy
from trainer.batches import BatchLoader, collate, pack
from trainer.dataset import Row, TrainingRows, examples_of, prepare_rows
from trainer.distributed import SINGLE_PROCESS
from trainer.varlen_attention import VARLEN
from transformers import AutoModelForCausalLM

from tests.support.examples import sums, write_examples


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, ...]:
    path = write_examples(tmp_path_factory.mktemp("rows") / "sums.jsonl", sums(6, longest=9))
    prepared = prepare_rows(
        examples_of(path), get_profile("plain"), build_tiny_tokenizer(), system_prompt="", max_length=512
    )
    return prepared.rows


@torch.no_grad()
def test_a_padded_batch_has_the_loss_of_its_rows_one_by_one(rows: tuple[Row, ...], base_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model).eval()
    batch = collate(rows, pad_id=0)
    logits = model(input_ids=batch.inputs, logits_to_keep=batch.logits_to_keep).logits.flatten(0, 1)[
        batch.target_positions
    ]
    together = cross_entropy(logits, batch.targets)

    total = 0.0
    for row in rows:
        labels = np.where(row.trained, row.ids, -100).astype(np.int64)
        one = model(input_ids=torch.from_numpy(row.ids[None].astype(np.int64)), labels=torch.from_numpy(labels[None]))
        total += float(one.loss) * int(row.trained.sum())
    assert float(together) == pytest.approx(total / batch.trained_tokens, rel=1e-5)


@torch.no_grad()
def test_the_content_of_the_padding_does_not_matter(rows: tuple[Row, ...], base_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model).eval()
    batches = [collate(rows, pad_id=pad) for pad in (0, 100)]
    outputs = [
        model(input_ids=b.inputs, logits_to_keep=b.logits_to_keep).logits.flatten(0, 1)[b.target_positions]
        for b in batches
    ]
    assert torch.equal(outputs[0], outputs[1])


def test_an_empty_share_of_a_step_trains_nothing() -> None:
    empty = collate([], pad_id=0)
    assert (empty.trained_tokens, empty.tokens, empty.inputs.shape, empty.logits_to_keep) == (0, 0, (1, 1), 1)


@pytest.mark.parametrize("attention", ["sdpa", "eager", VARLEN])
def test_packed_rows_have_the_loss_and_gradients_of_padded_ones(
    rows: tuple[Row, ...], base_model: Path, attention: str
) -> None:
    """What flash attention and sdpa by row do by the places of tokens, other kernels do by a mask made of them."""
    found = []
    for batch in (collate(rows, pad_id=0), pack(rows)):
        model = AutoModelForCausalLM.from_pretrained(base_model, attn_implementation=attention).eval()
        more = {} if batch.position_ids is None else {"position_ids": batch.position_ids}
        logits = model(input_ids=batch.inputs, logits_to_keep=batch.logits_to_keep, use_cache=False, **more).logits
        loss = cross_entropy(logits.flatten(0, 1)[batch.target_positions], batch.targets)
        loss.backward()
        found.append((float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}, batch))
    (padded, gradients, _), (flat, other_gradients, batch) = found
    assert flat == pytest.approx(padded, rel=1e-5)
    assert batch.inputs.numel() == batch.tokens, "no padding"
    for name, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", VARLEN])
@torch.no_grad()
def test_a_packed_row_does_not_attend_to_others(rows: tuple[Row, ...], base_model: Path, attention: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model, attn_implementation=attention).eval()
    outputs = []
    for before in (rows[0], rows[1]):
        line = [Row(1, before.ids[:8], before.trained[:8]), rows[2]]
        batch = pack(line)
        logits = model(input_ids=batch.inputs, position_ids=batch.position_ids, use_cache=False).logits
        outputs.append(logits[0, -(len(rows[2].ids) - 1) :])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)


def test_the_loader_packs_rows_on_request(rows: tuple[Row, ...]) -> None:
    dataset = TrainingRows(rows, ())
    loader = BatchLoader(dataset, dataset.lines, 3, 1, 0, SINGLE_PROCESS, packed=True)
    batches = list(loader)
    assert [batch.inputs.shape[0] for batch in batches] == [1, 1]
    assert sum(batch.inputs.numel() for batch in batches) == int((dataset.lengths - 1).sum())
