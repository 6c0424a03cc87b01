"""A batch of rows with their KV cache, which grows one token at a time while rows join and leave.

It works on tensors only: sampling picks the tokens, and batch_decoder decides when a row ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

States = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each [rows, heads, tokens, width]; positions after a row's tokens are padding."""

Known = tuple[States, int]
"""The states of one row: those of its batch, and its index in them."""


class Batch:
    """Left-padded rows with their KV cache. ``history`` [rows, width] is all tokens so far, with padding.

    A model that does not use the cache of transformers (such as Mamba) reads all tokens at every step. ``rooms`` are
    the tokens that each row may still get; one that stays longer gets no further positions. ``known`` are
    the left-aligned states of all tokens but the last of each row, if they have been computed already.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        pad_id: int,
        rooms: Sequence[int],
        known: Sequence[Known] | None = None,
    ):
        width, room = max(map(len, prompts)), max(rooms)
        rows = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        columns = torch.arange(width + room, device=model.device)
        self._model = model
        self._pad_id = pad_id
        self.history = torch.tensor(rows, device=model.device)
        self._mask = (columns >= (width - lengths)[:, None]).long()
        self._positions = (self._mask[:, :width].cumsum(1) - 1).clamp(min=0)
        # An ended row stays until it is dropped. Where positions are learned, there may be none for what it gets then.
        self._last_positions = (lengths + torch.tensor(rooms, device=model.device) - 1)[:, None]
        self._cache = DynamicCache(config=model.config)
        self._cached = 0
        if known:
            self._take(known, lengths - 1)

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
        self._cached = width if _is_used(self._cache) else 0
        return output.logits[:, -1].float()

    def append(self, tokens: torch.Tensor) -> None:
        """Append one token to every row; ``tokens`` is [rows]."""
        self.history = torch.cat([self.history, tokens[:, None]], dim=1)
        last = (self._positions[:, -1:] + 1).minimum(self._last_positions)
        self._positions = last if self._cached else torch.cat([self._positions, last], dim=1)

    def keep(self, rows: torch.Tensor) -> None:
        """Keep the rows with these indices, and drop the others."""
        self._cache.reorder_cache(rows)  # unlike batch_select_indices, every kind of layer has it
        self._mask = self._mask[rows]
        self.history = self.history[rows]
        self._positions = self._positions[rows]
        self._last_positions = self._last_positions[rows]

    @property
    def can_be_joined(self) -> bool:
        """Whether the cache holds keys and values of all tokens, which can be concatenated with those of others."""
        return states_of(self._cache) is not None

    def join(self, rows: torch.Tensor, other: Batch, room: int) -> None:
        """Keep these rows, and append those of another batch, right-aligned; each may get ``room`` more tokens.

        Both must have computed logits and then appended a token.
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
        self._last_positions = torch.cat([batch._last_positions[kept] for batch, kept in parts])
        self._cached = width - 1

    def _take(self, known: Sequence[Known], lengths: torch.Tensor) -> None:
        """Fill the cache, right-aligned. Masked columns hold a copy of a row's first state."""
        width = self.history.shape[1] - 1
        columns = (torch.arange(width, device=lengths.device) - (width - lengths)[:, None]).clamp(min=0)
        parts = [
            (states, torch.tensor([place for _, place in rows], device=lengths.device))
            for states, rows in ((group[0][0], group) for group in _by_states(known))
        ]
        starts = torch.tensor([0, *(len(places) for _, places in parts)]).cumsum(0).tolist()
        for number in range(len(known[0][0])):
            both = (
                torch.cat(
                    [
                        states[number][kind][places[:, None], :, columns[start : start + len(places)]]
                        for (states, places), start in zip(parts, starts, strict=False)
                    ]
                ).transpose(1, 2)
                for kind in (0, 1)
            )
            self._cache.update(*both, number)
        self._cached = width
        self._positions = self._positions[:, -1:]


class ZeroCopyLayer(DynamicLayer):
    """A cache layer that keeps its first states without a copy; DynamicLayer copies them."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.is_initialized:
            return super().update(key_states, value_states, *args, **options)
        self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        return key_states, value_states


def prefill_cache(model: Any) -> DynamicCache:
    """An empty cache for one forward pass."""
    cache = DynamicCache(config=model.config)
    if _keeps_all(cache):
        cache.layers = [ZeroCopyLayer() for _ in cache.layers]
    return cache


def states_of(cache: Any) -> States | None:
    """The states in a cache; None if a layer is empty, or holds anything but keys and values of all tokens."""
    if not _keeps_all(cache) or not all(layer.is_initialized for layer in cache.layers):
        return None
    return [(layer.keys, layer.values) for layer in cache.layers]


def can_be_cropped(model: Any) -> bool:
    """Whether the model's cache keeps keys and values of all tokens, according to its configuration."""
    return _keeps_all(DynamicCache(config=model.config))


def _keeps_all(cache: Any) -> bool:
    return all(type(layer) in (DynamicLayer, ZeroCopyLayer) for layer in cache.layers)


def _is_used(cache: DynamicCache) -> bool:
    """Whether the model has written to its cache, with layers of any kind."""
    return any(getattr(layer, "is_initialized", False) or _has_state(layer) for layer in cache.layers)


def _has_state(layer: Any) -> bool:
    return any(getattr(layer, "has_previous_state", {}).values())


def _by_states(known: Sequence[Known]) -> list[list[Known]]:
    """Group adjacent rows whose states are in the same tensors."""
    return [list(group) for _, group in groupby(known, key=lambda row: id(row[0]))]


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
