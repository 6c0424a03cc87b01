"""Continuous batching: rows join and leave a batch between two tokens, so that none waits for another's answer.

Prompts that join are read in a forward pass of their own, and then stand beside the rows under way, right-aligned
(iteration-level scheduling: Yu et al. 2022, Orca).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch

from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.decode import Answer
from ratchet.inference.framing import ChatCodec
from ratchet.inference.generator import Generation
from ratchet.inference.kv_batch import Batch
from ratchet.inference.sampling import Prompt, Sampler
from ratchet.inference.shortage import is_out_of_memory

READ_AT_ONCE = 2048
"""Prompt tokens, padding included, that may be read between two tokens of the rows under way; one prompt always is."""


JOIN_AFTER = 4
"""Reading prompts costs everybody under way about a token. So they are read at once where they are a quarter as many
as the rows under way, and fewer of them after four tokens."""


class Request(Protocol):
    """Who asks. After a shortage of memory an answer may begin once more."""

    @property
    def prompt(self) -> Prompt: ...

    def grew(self, answer: Answer) -> bool:
        """Called after every token; True ends the answer."""
        ...

    def settle(self, generation: Generation) -> None: ...


Asker = TypeVar("Asker", bound=Request)


@dataclass
class _Row(Generic[Asker]):
    request: Asker
    answer: Answer = field(default_factory=Answer)
    started: float = field(default_factory=time.perf_counter)

    @property
    def room(self) -> int:
        return self.request.prompt.max_new_tokens - len(self.answer.token_ids)


@dataclass
class _Standing:
    """Rows in their places, with the tokens that they have been given since one of them joined."""

    batch: Batch
    sampler: Sampler
    step: int = 0

    def next(self) -> tuple[list[int], list[float]]:
        """The next token of every row, and its log-probability."""
        logits = self.batch.logits()
        tokens = self.sampler.pick(logits, self.batch.history, self.step)
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        self.batch.append(tokens)
        self.step += 1
        return tokens.tolist(), logprobs.tolist()

    def takes(self, waiting: int, under_way: int) -> bool:
        is_worth_it = JOIN_AFTER * waiting >= under_way or self.step >= JOIN_AFTER
        return is_worth_it and self.batch.may_be_joined

    def join(self, rows: torch.Tensor, other: _Standing, room: int) -> None:
        """Keep these rows, and set those of another behind them, which have got one token."""
        self.batch.join(rows, other.batch, room)
        self.sampler.join(rows, self.step, other.sampler)
        self.step = 0

    def keep(self, rows: torch.Tensor) -> None:
        self.batch.keep(rows)
        self.sampler.keep(rows)


class RollingBatch(Generic[Asker]):
    """The rows under way. It belongs to one thread.

    ``max_tokens`` is the most of rows times padded width, answers included; one row always fits.
    """

    def __init__(self, model: Any, framing: ChatCodec, pad_id: int, *, max_rows: int, max_tokens: int):
        self._model = model
        self._framing = framing
        self._pad_id = pad_id
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._rows: list[_Row[Asker]] = []
        self._standing: _Standing | None = None

    @property
    def requests(self) -> list[Asker]:
        """Those that are not answered yet, in the order in which they joined."""
        return [row.request for row in self._rows if not row.answer.done]

    def fitting(self, prompts: Sequence[Prompt]) -> int:
        """How many of these, from the first on, may join now. One at the least where no row is under way."""
        under_way = [request.prompt for request in self.requests]
        if self._standing is not None and not self._standing.takes(len(prompts), len(under_way)):
            return 0
        width = max(map(_width, under_way), default=0)
        longest = 0
        for number, prompt in enumerate(prompts):
            rows = len(under_way) + number + 1
            width, longest = max(width, _width(prompt)), max(longest, len(prompt.token_ids))
            reads_too_much = number > 0 and (number + 1) * longest > READ_AT_ONCE
            if rows > 1 and (rows > self._max_rows or rows * width > self._max_tokens or reads_too_much):
                return number
        return len(prompts)

    @torch.inference_mode()
    def advance(self, joining: Sequence[Asker]) -> list[Asker]:
        """Give each row under way its next token, and each that joins its first.

        Returns those that memory was too short for: they begin again, before any other, in smaller batches. Raises
        BrokenCheckpoint on logits that are not finite and GenerationError where the model fails: then clear.
        """
        whole = [*self.requests, *joining]
        try:
            if self._standing is not None:
                self._grow(self._standing)
            if joining:
                self._join([_Row(request) for request in joining])
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise GenerationError(f"the model failed: {error}") from error
            if len(whole) == 1:
                raise GenerationError("out of memory with a batch of one prompt.") from error
            self._max_rows = len(whole) // 2
            self.clear()
            return whole
        return []

    def clear(self) -> None:
        """Drop all rows, answered or not."""
        self._rows, self._standing = [], None

    def _grow(self, standing: _Standing) -> None:
        self._give(self._rows, standing.next())
        self._drop_done()

    def _join(self, rows: list[_Row[Asker]]) -> None:
        """Read the prompts of new rows, and set these behind the rows under way."""
        room = max(row.room for row in (*self._rows, *rows))
        prompts = [row.request.prompt for row in rows]
        new = _Standing(
            Batch(self._model, [prompt.token_ids for prompt in prompts], self._pad_id, room),
            Sampler(prompts, self._framing.processors, self._model.device),
        )
        self._give(rows, new.next())
        if self._standing is None:
            self._standing = new
        else:
            self._standing.join(self._keep_open(), new, room)
        self._rows = [*self._rows, *rows]
        self._drop_done()

    def _drop_done(self) -> None:
        """Let answered rows go once they are half of the batch; those who join send them away as well."""
        under_way = len(self.requests)
        if under_way == 0:
            self.clear()
        elif self._standing is not None and 2 * under_way <= len(self._rows):
            self._standing.keep(self._keep_open())

    def _keep_open(self) -> torch.Tensor:
        """Drop the answered rows; the places that the others had."""
        places = [place for place, row in enumerate(self._rows) if not row.answer.done]
        self._rows = [self._rows[place] for place in places]
        return torch.tensor(places, device=self._model.device)

    def _give(self, rows: Sequence[_Row[Asker]], picked: tuple[list[int], list[float]]) -> None:
        """Add a token, and its log-probability, to every row that is not answered yet."""
        for row, token, logprob in zip(rows, *picked, strict=True):
            if not row.answer.done:
                self._add(row, token, logprob)

    def _add(self, row: _Row[Asker], token: int, logprob: float) -> None:
        if not math.isfinite(logprob):
            raise BrokenCheckpoint("the model computes NaN: its weights, or its precision, are broken.")
        answer, prompt = row.answer, row.request.prompt
        answer.token_ids.append(token)
        answer.logprobs.append(logprob)
        told = row.request.grew(answer) or self._framing.text.says_stop(answer.token_ids, prompt.decoding)
        answer.stopped = told or token in self._framing.end_ids
        if answer.stopped or not row.room:
            answer.done = True
            answer.latency_s = time.perf_counter() - row.started
            row.request.settle(self._framing.generation(prompt, answer))


def _width(prompt: Prompt) -> int:
    return len(prompt.token_ids) + prompt.max_new_tokens
