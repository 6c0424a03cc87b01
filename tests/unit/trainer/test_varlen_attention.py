"""Attention by row equals attention with a mask, for rows of any lengths in any order; models that use it."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from trainer.varlen_attention import VARLEN, use_varlen_attention, varlen_attention
from transformers import AutoModelForCausalLM, FalconConfig, FalconForCausalLM, MistralConfig, MistralForCausalLM


def line(lengths: list[int], heads: int = 2, width: int = 8) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Queries, keys and values of a line of rows, and the places of its tokens."""
    generator = torch.Generator().manual_seed(sum(lengths))
    shape = (1, heads, sum(lengths), width)
    states = [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]
    return states, torch.cat([torch.arange(length) for length in lengths])[None]


def attend(states: list[torch.Tensor], position_ids: torch.Tensor) -> torch.Tensor:
    return varlen_attention(torch.nn.Module(), *states, None, position_ids=position_ids, is_causal=True)[0]


def with_mask(states: list[torch.Tensor], lengths: list[int]) -> torch.Tensor:
    row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = (row[:, None] == row[None]).tril()
    return scaled_dot_product_attention(*states, attn_mask=mask).transpose(1, 2)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [3, 9, 1, 8, 2, 30], [1, 1], [7], [64, 2, 33, 31]])
def test_variable_length_attention_equals_masked_attention(lengths: list[int]) -> None:
    states, position_ids = line(lengths)
    other, _ = line(lengths)
    found, expected = attend(states, position_ids), with_mask(other, lengths)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for result in (found, expected):
        (result * torch.arange(result.numel()).view_as(result).sin()).sum().backward()
    for one, same in zip(states, other, strict=True):
        torch.testing.assert_close(one.grad, same.grad, rtol=1e-4, atol=1e-5)


def test_the_same_packed_rows_give_the_same_bits() -> None:
    lengths = [3, 9, 1, 8, 2, 30]
    results = []
    for _ in range(2):
        states, position_ids = line(lengths)
        found = attend(states, position_ids)
        found.square().sum().backward()
        results.append([found, *(state.grad for state in states)])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_states_in_16_bits_are_attended_in_fp32() -> None:
    lengths = [5, 30, 7]
    states, position_ids = line(lengths)
    half = [state.detach().bfloat16() for state in states]
    found = attend(half, position_ids)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, attend([state.float() for state in half], position_ids).bfloat16())


def test_a_packed_row_does_not_depend_on_its_position() -> None:
    lengths = [4, 12, 6]
    states, position_ids = line(lengths)
    found = attend(states, position_ids)[0]
    for begin, length in zip(accumulate([0, *lengths]), lengths, strict=False):
        alone = [state[:, :, begin : begin + length] for state in states]
        expected = attend(alone, position_ids[:, begin : begin + length])[0]
        torch.testing.assert_close(found[begin : begin + length], expected, rtol=1e-4, atol=1e-5)


def test_the_built_in_model_attends_by_row(base_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model)
    assert use_varlen_attention(model.train(), longest=1024)
    assert model.config._attn_implementation == VARLEN
    assert model.training


@torch.no_grad()
def test_padded_prompts_keep_their_mask(base_model: Path) -> None:
    """The model in training also answers previews, whose prompts are padded on the left."""
    model = AutoModelForCausalLM.from_pretrained(base_model).eval()
    tokens, mask = torch.tensor([[0, 0, 7, 8], [5, 6, 7, 8]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    options: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "position_ids": position_ids}
    before = model(**options).logits[mask == 1]
    assert use_varlen_attention(model, longest=1024)
    assert torch.equal(model(**options).logits[mask == 1], before)


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}


def test_a_sliding_window_shorter_than_a_row_disables_packing() -> None:
    config = MistralConfig(**SMALL, num_key_value_heads=1, intermediate_size=64, sliding_window=100)
    assert not use_varlen_attention(MistralForCausalLM(config), longest=101)
    assert use_varlen_attention(MistralForCausalLM(config), longest=100)


def test_a_model_that_cannot_attend_by_row_keeps_its_kernel() -> None:
    model = FalconForCausalLM(FalconConfig(**SMALL))
    before = model.config._attn_implementation
    assert not use_varlen_attention(model, longest=64)
    assert model.config._attn_implementation == before


def test_a_checkpoint_keeps_no_trace_of_the_packing_kernel(base_model: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base_model)
    assert use_varlen_attention(model, longest=64)
    model.save_pretrained(tmp_path)
    assert VARLEN not in json.dumps(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
