"""A batch of rows with their KV cache, grown by one token at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache


class Batch:
    """Left-padded rows with their KV cache. ``history`` [rows, width] is all tokens so far, with padding."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, room: int):
        width = max(map(len, prompts))
        rows = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        columns = torch.arange(width + room, device=model.device)
        self._model = model
        self.history = torch.tensor(rows, device=model.device)
        self._mask = (columns >= (width - lengths)[:, None]).long()
        self._positions = (self._mask[:, :width].cumsum(1) - 1).clamp(min=0)
        self._cache = DynamicCache(config=model.config)
        self._cached = 0

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
