"""Variable-length attention on a CPU, as flash attention has on a GPU: each packed row attends only to itself.

The other parts of a model (projections, norms, feed-forward, loss) work token by token and need no change, so no
padding goes through them. Here rows of similar length are batched for each call of torch's kernel, padded on the right,
where causal attention cannot see it, to the longest.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

VARLEN = "sdpa_varlen"
"""The name under which this attention is registered with transformers."""

_SHORTEST_SHARE = 0.5
"""Minimum length of a row in a batch, as a fraction of the longest."""

_TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, that rounding can explain."""

_HALF = (torch.bfloat16, torch.float16)
"""Under autocast, queries, keys and values in 16 bits go through torch's CPU kernel in fp32 and back: it widens them
itself anyway, and takes twice as long for rows of up to about a hundred tokens."""

_PROBE = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 4, 5, 6, 7]])
"""Two packed sequences whose second rows are the same."""


def use_varlen_attention(model: Any, longest: int) -> bool:
    """Switch the model to this attention if it supports it; returns whether it does. ``longest`` is the longest row.

    Some models attend to a window or mix tokens in other ways than by attention, and some do not pass position ids to
    their attention. So it is tested: the logits of a row must not depend on the row before it.
    """
    text = model.config.get_text_config()
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    before = model.config._attn_implementation
    if before != "sdpa" or any(window is not None and window < longest for window in windows):
        return False
    model.set_attn_implementation(VARLEN)
    if model.config._attn_implementation == VARLEN and _keeps_rows_apart(model):
        return True
    model.set_attn_implementation(before)
    return False


@torch.no_grad()
def _keeps_rows_apart(model: Any) -> bool:
    was_training = model.training
    model.eval()
    position_ids = torch.tensor([[0, 1, 2, 0, 1, 2, 3]], device=model.device)
    lines = _PROBE.to(model.device) % model.get_input_embeddings().num_embeddings
    one, other = (
        model(input_ids=line[None], position_ids=position_ids, use_cache=False).logits[0, 3:] for line in lines
    )
    model.train(was_training)
    return bool((one - other).abs().max() <= _TOLERANCE * one.abs().max())


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of queries [1, heads, length, width] to keys of one packed sequence; ``position_ids`` [1, length]
    restart at 0 with each row. Any other input is passed to transformers' ``sdpa``."""
    whole = attention_mask is None and position_ids is not None and query.shape[0] == 1
    begins = (position_ids.ravel() == 0).nonzero().ravel().tolist() if whole and position_ids is not None else []
    if len(begins) < 1 or query.shape[2] != key.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    dtype = query.dtype
    if dtype in _HALF:
        query, key, value = query.float(), key.float(), value.float()
    return _attend(module, query, key, value, (*begins, query.shape[2]), options).to(dtype), None


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: tuple[int, ...],
    options: dict[str, Any],
) -> torch.Tensor:
    """The output, [1, length, heads, width]."""
    if len({end - begin for begin, end in pairwise(bounds)}) == 1:
        rows, (_, heads, length, _) = len(bounds) - 1, query.shape
        batch = [
            states[0].reshape(-1, rows, length // rows, states.shape[3]).transpose(0, 1)
            for states in (query, key, value)
        ]
        return sdpa_attention_forward(module, *batch, None, **options)[0].reshape(1, length, heads, -1)
    parts, order = [], []
    for indices, real in _groups(bounds):
        batch = [states[0, :, indices].transpose(0, 1) for states in (query, key, value)]
        attended, _ = sdpa_attention_forward(module, *batch, None, **options)
        parts.append(attended.flatten(0, 1)[real])
        order.append(indices.ravel()[real])
    return torch.cat(parts)[torch.cat(order).argsort()][None]


@lru_cache(maxsize=8)
def _groups(bounds: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Groups of rows of similar length: indices into the sequence, [rows, longest], and which of them, flattened, are
    not padding."""
    rows = sorted(pairwise(bounds), key=lambda row: row[0] - row[1])
    groups: list[list[tuple[int, int]]] = []
    for begin, end in rows:
        if groups and end - begin >= _SHORTEST_SHARE * (groups[-1][0][1] - groups[-1][0][0]):
            groups[-1].append((begin, end))
        else:
            groups.append([(begin, end)])
    return [_padded_indices(group) for group in groups]


def _padded_indices(group: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    begins = torch.tensor([begin for begin, _ in group])[:, None]
    lengths = torch.tensor([end - begin for begin, end in group])[:, None]
    columns = torch.arange(int(lengths.max()))[None]
    indices = begins + columns.minimum(lengths - 1)
    return indices, (columns < lengths).ravel().nonzero().ravel()


def _no_mask_when_packed(batch_size: int, q_length: int, kv_length: int, **options: Any) -> torch.Tensor | None:
    """No mask for a packed sequence, whose rows ``varlen_attention`` separates; else the mask of ``sdpa``."""
    if options.get("attention_mask") is None and batch_size == 1 and q_length == kv_length:
        return None
    return sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, **options)


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, _no_mask_when_packed)
