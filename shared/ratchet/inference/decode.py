"""The decoding loop of one batch. It knows token ids only; what they mean in text is the caller's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.drafts import Checked, FirstPass
from ratchet.inference.kv_batch import Batch, Known
from ratchet.inference.sampling import Prompt, Sampler


@dataclass
class Answer:
    """A row as it grows. ``logprobs`` are the bare model's, before temperature and processors.

    ``draft_logprobs`` are those of the prompt's draft, all of its tokens.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    done: bool = False
    latency_s: float = 0.0
    draft_logprobs: list[float] = field(default_factory=list)


Ends = Callable[[int, Answer], bool]
"""Told of every token of a row: its number, and its answer so far. True ends the row."""


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    end_ids: frozenset[int],
    pad_id: int,
    timeout_s: float,
    most_logits: int,
    processors: Sequence[Any] = (),
    ends: Ends | None = None,
    score_drafts: bool = True,
) -> list[Answer]:
    """Answer every prompt, each up to an end token, its own token limit, or the word of ``ends``.

    What drafts foretell is answered first, the rest a token at a time. ``score_drafts`` False leaves drafts out where
    they are mostly wrong. Rows that are done leave the batch whenever a quarter of it is, which depends on the answers
    alone. Raises BrokenCheckpoint on logits that are not finite, and GenerationError when the time is over.
    """
    rows = _Rows(prompts, end_ids, ends, timeout_s)
    first = FirstPass(model, end_ids=end_ids, pad_id=pad_id, processors=processors, most_logits=most_logits)
    for checked in first.check(prompts, score_drafts):
        rows.begin(checked)
    rows.line_up()
    if rows.open:
        _grow(model, rows, pad_id, processors)
    return rows.answers


def _grow(model: Any, rows: _Rows, pad_id: int, processors: Sequence[Any]) -> None:
    """Give all open rows a token at a time until each is done."""
    batch = Batch(model, rows.token_ids, pad_id, max(rows.room), rows.known)
    sampler = Sampler(rows.prompts, processors, model.device, rows.begun)
    for step in range(max(rows.room)):
        logits = batch.logits()
        tokens = sampler.pick(logits, batch.history, step)
        logprobs = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
        rows.extend(tokens.tolist(), logprobs.tolist())
        if not rows.open:
            break
        batch.append(tokens)
        if rows.is_worth_shrinking:
            places = torch.tensor(rows.drop_done(), device=model.device)
            batch.keep(places)
            sampler.keep(places)


class _Rows:
    """The answers, and which of them stand at which place of the batch."""

    def __init__(self, prompts: Sequence[Prompt], end_ids: frozenset[int], ends: Ends | None, timeout_s: float):
        self.answers = [Answer() for _ in prompts]
        self.open = len(prompts)
        self._prompts = prompts
        self._end_ids = end_ids
        self._ends = ends
        self._timeout_s = timeout_s
        self._started = time.perf_counter()
        self._places = list(range(len(prompts)))
        self._known: dict[int, Known] = {}

    @property
    def is_worth_shrinking(self) -> bool:
        return 4 * self.open <= 3 * len(self._places)

    @property
    def prompts(self) -> list[Prompt]:
        return [self._prompts[row] for row in self._places]

    @property
    def begun(self) -> list[int]:
        """Tokens of each answer so far."""
        return [len(self.answers[row].token_ids) for row in self._places]

    @property
    def room(self) -> list[int]:
        """Tokens that each answer may still get."""
        return [prompt.max_new_tokens - begun for prompt, begun in zip(self.prompts, self.begun, strict=True)]

    @property
    def token_ids(self) -> list[tuple[int, ...]]:
        """Prompts with their answers so far."""
        return [(*self._prompts[row].token_ids, *self.answers[row].token_ids) for row in self._places]

    @property
    def known(self) -> list[Known] | None:
        """States of all tokens but the last of each, where they are known of every row."""
        known = [self._known[row] for row in self._places if row in self._known]
        return known if len(known) == len(self._places) else None

    def begin(self, checked: Checked) -> None:
        """Give rows the beginnings that their drafts foretold, and what the model says after them."""
        elapsed_s = self._elapsed_s()
        found = zip(checked.rows, checked.token_ids, checked.logprobs, checked.draft_logprobs, strict=True)
        for row, token_ids, logprobs, draft_logprobs in found:
            answer = self.answers[row]
            answer.draft_logprobs = draft_logprobs
            _require_finite(logprobs)
            for token, logprob in zip(token_ids, logprobs, strict=True):
                if not answer.done:
                    self._add(row, answer, token, logprob, elapsed_s)
        left = [place for place, row in enumerate(checked.rows) if not self.answers[row].done]
        if checked.states is not None and left:
            states = [(keys[left], values[left]) for keys, values in checked.states]
            self._known.update((checked.rows[place], (states, at)) for at, place in enumerate(left))

    def extend(self, tokens: list[int], logprobs: list[float]) -> None:
        """Give every open row at its place its next token."""
        elapsed_s = self._elapsed_s()
        _require_finite(logprobs)
        for row, token, logprob in zip(self._places, tokens, logprobs, strict=True):
            answer = self.answers[row]
            if not answer.done:
                self._add(row, answer, token, logprob, elapsed_s)

    def line_up(self) -> None:
        """Put the open rows in their places, those together whose states stand together."""
        unknown = [row for row in self._places if row not in self._known and not self.answers[row].done]
        self._places = [*self._known, *unknown]

    def drop_done(self) -> list[int]:
        """Keep the open rows alone; returns the places that they had."""
        kept = [place for place, row in enumerate(self._places) if not self.answers[row].done]
        self._places = [self._places[place] for place in kept]
        return kept

    def _add(self, row: int, answer: Answer, token: int, logprob: float, elapsed_s: float) -> None:
        answer.token_ids.append(token)
        answer.logprobs.append(logprob)
        told = self._ends is not None and self._ends(row, answer)
        if told or token in self._end_ids:
            answer.stopped = True
            self._close(answer, elapsed_s)
        elif len(answer.token_ids) >= self._prompts[row].max_new_tokens:
            self._close(answer, elapsed_s)

    def _close(self, answer: Answer, elapsed_s: float) -> None:
        answer.done = True
        answer.latency_s = elapsed_s
        self.open -= 1

    def _elapsed_s(self) -> float:
        """Since the batch began. GenerationError when its time is over."""
        elapsed_s = time.perf_counter() - self._started
        if elapsed_s > self._timeout_s:
            raise GenerationError(f"a batch of {len(self.answers)} took over {self._timeout_s:g} s (batch_timeout_s).")
        return elapsed_s


def _require_finite(logprobs: Sequence[float]) -> None:
    if not math.isfinite(sum(logprobs)):
        raise BrokenCheckpoint("the model computes NaN: its weights, or its precision, are broken.")
