"""The decoding loop of one batch. It knows token ids only; what they mean in text is the caller's."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.kv_batch import Batch
from ratchet.inference.sampling import Prompt, Sampler


@dataclass
class Answer:
    """A row as it grows. ``logprobs`` are the bare model's, before temperature and processors."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    done: bool = False
    latency_s: float = 0.0


class Watcher(Protocol):
    """Looks on while a batch is decoded, row by row."""

    def token(self, row: int, answer: Answer) -> bool:
        """Called after every token of a row; True ends the row."""
        ...

    def done(self, row: int, answer: Answer) -> None:
        """Called once a row is complete, while others may go on."""
        ...


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    end_ids: frozenset[int],
    pad_id: int,
    timeout_s: float,
    processors: Sequence[Any] = (),
    watcher: Watcher | None = None,
) -> list[Answer]:
    """Answer every prompt, each up to an end token, its own token limit, or the watcher's word.

    Rows that are done leave the batch whenever half of it is, which depends on the answers alone. Raises
    BrokenCheckpoint on logits that are not finite, and GenerationError when the time is over.
    """
    started = time.perf_counter()
    steps = max(prompt.max_new_tokens for prompt in prompts)
    batch = Batch(model, [prompt.token_ids for prompt in prompts], pad_id, steps)
    sampler = Sampler(prompts, processors, model.device)
    rows = _Rows(prompts, end_ids, watcher)
    for step in range(steps):
        logits = batch.logits()
        tokens = sampler.pick(logits, batch.history, step)
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        elapsed_s = time.perf_counter() - started
        rows.extend(tokens.tolist(), logprobs.tolist(), elapsed_s)
        if not rows.open:
            break
        if elapsed_s > timeout_s:
            raise GenerationError(f"a batch of {len(prompts)} took over {timeout_s:g} s (batch_timeout_s).")
        batch.append(tokens)
        if rows.half_done:
            places = torch.tensor(rows.drop_done(), device=model.device)
            batch.keep(places)
            sampler.keep(places)
    return rows.answers


class _Rows:
    """The answers, and which of them stand at which place of the batch."""

    def __init__(self, prompts: Sequence[Prompt], end_ids: frozenset[int], watcher: Watcher | None):
        self.answers = [Answer() for _ in prompts]
        self.open = len(prompts)
        self._prompts = prompts
        self._end_ids = end_ids
        self._watcher = watcher
        self._places = list(range(len(prompts)))

    @property
    def half_done(self) -> bool:
        return 2 * self.open <= len(self._places)

    def extend(self, tokens: list[int], logprobs: list[float], elapsed_s: float) -> None:
        """Give every open row at its place its next token."""
        for row, token, logprob in zip(self._places, tokens, logprobs, strict=True):
            answer = self.answers[row]
            if answer.done:
                continue
            if not math.isfinite(logprob):
                raise BrokenCheckpoint("the model computes NaN: its weights, or its precision, are broken.")
            answer.token_ids.append(token)
            answer.logprobs.append(logprob)
            told = self._watcher.token(row, answer) if self._watcher else False
            answer.stopped = told or token in self._end_ids
            if answer.stopped or len(answer.token_ids) >= self._prompts[row].max_new_tokens:
                self._close(row, answer, elapsed_s)

    def drop_done(self) -> list[int]:
        """Keep the open rows alone; returns the places that they had."""
        kept = [place for place, row in enumerate(self._places) if not self.answers[row].done]
        self._places = [self._places[place] for place in kept]
        return kept

    def _close(self, row: int, answer: Answer, elapsed_s: float) -> None:
        answer.done = True
        answer.latency_s = elapsed_s
        self.open -= 1
        if self._watcher:
            self._watcher.done(row, answer)
