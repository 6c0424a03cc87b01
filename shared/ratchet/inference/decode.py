"""The decoding loop of one batch. It knows token ids only; what they mean in text is the caller's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from ratchet.errors import GenerationError
from ratchet.inference.sampling import Prompt, Sampler

OnToken = Callable[[int, "Answer"], bool]
"""Called with a row's index and its answer after every token of it; True ends the row."""


@dataclass
class Answer:
    """A row as it grows. ``logprobs`` are of the unscaled model, whatever the temperature."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    latency_s: float = 0.0


class Batch:
    """Left-padded rows with their KV cache."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], pad_id: int, room: int):
        width = max(map(len, prompts))
        rows = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        columns = torch.arange(width + room, device=model.device)
        self._model = model
        self._tokens = torch.tensor(rows, device=model.device)
        self._mask = (columns >= (width - lengths)[:, None]).long()
        self._positions = (self._mask[:, :width].cumsum(1) - 1).clamp(min=0)
        self._cache = DynamicCache(config=model.config)
        self._width = width

    def logits(self) -> torch.Tensor:
        """Float32 logits [rows, vocabulary] of the next token, from all tokens so far."""
        output = self._model(
            input_ids=self._tokens,
            attention_mask=self._mask[:, : self._width],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float()

    def append(self, tokens: torch.Tensor) -> None:
        """Add one token [rows] to every row."""
        self._tokens = tokens[:, None]
        self._positions = self._positions[:, -1:] + 1
        self._width += 1

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows only."""
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]
        self._tokens = self._tokens[rows]
        self._positions = self._positions[rows]


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    end_ids: frozenset[int],
    pad_id: int,
    timeout_s: float,
    on_token: OnToken | None = None,
) -> list[Answer]:
    """Answer every prompt, each up to an end token, its own token limit, or ``on_token``'s word.

    Rows that are done leave the batch whenever half of it is, which depends on the answers alone. Raises
    GenerationError on logits that are not finite and when the time is over.
    """
    started = time.perf_counter()
    batch = Batch(model, [prompt.token_ids for prompt in prompts], pad_id, _longest(prompts))
    sampler = Sampler(prompts, model.device)
    answers = [Answer() for _ in prompts]
    rows = list(range(len(prompts)))
    open_rows = set(rows)
    for step in range(_longest(prompts)):
        logits = batch.logits()
        tokens = sampler.pick(logits, step)
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        elapsed_s = time.perf_counter() - started
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if row in open_rows and _extend(
                answers[row], token, logprob, prompts[row], end_ids, row, on_token
            ):
                answers[row].latency_s = elapsed_s
                open_rows.discard(row)
        if not open_rows:
            break
        if elapsed_s > timeout_s:
            raise GenerationError(f"a batch of {len(prompts)} took over {timeout_s:g} s (batch_timeout_s).")
        batch.append(tokens)
        if 2 * len(open_rows) <= len(rows):
            places = [place for place, row in enumerate(rows) if row in open_rows]
            rows = [rows[place] for place in places]
            kept = torch.tensor(places, device=model.device)
            batch.keep(kept)
            sampler.keep(kept)
    return answers


def _longest(prompts: Sequence[Prompt]) -> int:
    return max(prompt.max_new_tokens for prompt in prompts)


def _extend(
    answer: Answer,
    token: int,
    logprob: float,
    prompt: Prompt,
    end_ids: frozenset[int],
    row: int,
    on_token: OnToken | None,
) -> bool:
    """Add a token to an answer; True where that ends it."""
    if not math.isfinite(logprob):
        raise GenerationError("the model computes NaN: its weights or its precision are broken.")
    answer.token_ids.append(token)
    answer.logprobs.append(logprob)
    asked_to_stop = on_token(row, answer) if on_token else False
    answer.stopped = asked_to_stop or token in end_ids
    return answer.stopped or len(answer.token_ids) >= prompt.max_new_tokens
