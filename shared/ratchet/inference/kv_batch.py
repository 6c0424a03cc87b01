"""A batch of rows with their KV cache, grown by one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

States = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each [heads, tokens, width], of the tokens of one row."""


def states_of(cache: Any) -> list[States] | None:
    """What a cache holds, row by row; None where a layer keeps something else than keys and values of all tokens."""
    if not all(type(layer) is DynamicLayer for layer in cache.layers):
        return None
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return [[(keys[row], values[row]) for keys, values in layers] for row in range(len(layers[0][0]))]


class Batch:
    """Left-padded rows with their KV cache. ``history`` [rows, width] is all tokens so far, with padding.

    ``states`` are those of all tokens but the last of each row, where they are known already.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        pad_id: int,
        room: int,
        states: Sequence[States] | None = None,
    ):
        width = max(map(len, prompts))
        rows = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        columns = torch.arange(width + room, device=model.device)
        self._model = model
        self._pad_id = pad_id
        self.history = torch.tensor(rows, device=model.device)
        self._mask = (columns >= (width - lengths)[:, None]).long()
        self._positions = (self._mask[:, :width].cumsum(1) - 1).clamp(min=0)
        self._cache = DynamicCache(config=model.config)
        self._cached = 0
        if states:
            self._take(states)

    def logits(self) -> torch.Tensor:
        """Float32 logits [rows, vocabulary] of the next token, from all tokens so far."""
        width = self.history.shape[1]
        output = self._model(
            input_ids=self.history[:, self._cached :],
            attention_mask=self._mask[:, :width],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cached = width
        return output.logits[:, -1].float()

    def append(self, tokens: torch.Tensor) -> None:
        """Add one token [rows] to every row."""
        self.history = torch.cat([self.history, tokens[:, None]], dim=1)
        self._positions = self._positions[:, -1:] + 1

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]
        self.history = self.history[rows]
        self._positions = self._positions[rows]

    @property
    def may_be_joined(self) -> bool:
        """Whether its cache holds the keys and values of all tokens, which can stand beside those of others."""
        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def join(self, rows: torch.Tensor, other: Batch, room: int) -> None:
        """Keep these rows, and set those of another behind them, right-aligned; each may get ``room`` more tokens.

        Both have been asked for logits and been given a token after that.
        """
        parts = ((self, rows), (other, torch.arange(len(other.history), device=rows.device)))
        lengths = torch.cat([batch._mask[kept, : batch.history.shape[1]].sum(1) for batch, kept in parts])
        width = int(lengths.max())
        caches = [[(layer.keys[kept], layer.values[kept]) for layer in batch._cache.layers] for batch, kept in parts]
        for layer, mine, theirs in zip(self._cache.layers, *caches, strict=True):
            layer.keys, layer.values = (
                torch.cat([pad(held, (0, 0, width - 1 - held.shape[2], 0)) for held in both])
                for both in zip(mine, theirs, strict=True)
            )
        histories = [batch.history[kept] for batch, kept in parts]
        self.history = torch.cat([pad(row, (width - row.shape[1], 0), value=self._pad_id) for row in histories])
        self._mask = (torch.arange(width + room, device=rows.device) >= (width - lengths)[:, None]).long()
        self._positions = lengths[:, None] - 1
        self._cached = width - 1

    def _take(self, states: Sequence[States]) -> None:
        """Fill the cache, right-aligned."""
        for number in range(len(states[0])):
            both = (
                pad_sequence([row[number][part].transpose(0, 1) for row in states], True, 0.0, "left").transpose(1, 2)
                for part in (0, 1)
            )
            self._cache.update(*both, number)
        self._cached = self.history.shape[1] - 1
        self._positions = self._positions[:, -1:]
