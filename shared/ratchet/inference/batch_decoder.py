"""The decoding loop: rows that share one KV cache, and join and leave it between two tokens.

BatchDecoder is the engine. ``decode`` answers a list of prompts with it, as testing and mining do; ContinuousBatch
feeds it the requests of the inference server one by one (iteration-level scheduling: Yu et al. 2022, Orca). It works on
token ids and knows no templates or text; those are in ChatCodec.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch

from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.chat_codec import ChatCodec
from ratchet.inference.generator import Generation, TopTokens
from ratchet.inference.kv_batch import Batch, Known, is_out_of_memory
from ratchet.inference.prefill import Prefill, Prefilled, likeliest
from ratchet.inference.sampling import Answer, Prompt, Sampler

MAX_PREFILL_TOKENS = 2048
"""Most prompt tokens, padding included, that are prefilled between two decoding steps. A single longer prompt is still
prefilled, in a step of its own."""

JOIN_AFTER = 4
"""Prefilling prompts delays every active row by about one token. So new prompts join at once if there are at least a
quarter as many as active rows; fewer of them wait until four tokens have been decoded since the last join."""

SHRINK_BELOW = 3 / 4
"""Ended rows are dropped once at most this share of the batch is open: copying the cache costs about one token."""

SHRINK_BELOW_WHEN_JOINED = 1 / 2
"""The same where rows join again and again: a join copies the cache anyway, and drops ended rows as it does."""

Owner = TypeVar("Owner")
"""Identifies whom a row is decoded for: the index of a prompt in a list, or a request."""


@dataclass
class Row(Generic[Owner]):
    """A prompt with its answer so far."""

    owner: Owner
    prompt: Prompt
    answer: Answer = field(default_factory=Answer)
    started: float = field(default_factory=time.perf_counter)

    @property
    def room(self) -> int:
        """Tokens that may still be appended to the answer."""
        return self.prompt.max_new_tokens - len(self.answer.token_ids)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return (*self.prompt.token_ids, *self.answer.token_ids)


@dataclass
class _Next:
    """One token of each row, with log-probabilities. ``top`` is empty unless a row asks for the likeliest tokens."""

    tokens: list[int]
    logprobs: list[float]
    top: list[TopTokens]


@dataclass
class _Tensors:
    """Cache and sampler of the rows, and the number of tokens decoded since the last row joined."""

    batch: Batch
    sampler: Sampler
    steps: int = 0

    def next(self, top: int) -> _Next:
        """The next token of every row, and the ``top`` likeliest ones."""
        logits = self.batch.logits()
        tokens = self.sampler.pick(logits, self.batch.history, self.steps)
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        self.batch.append(tokens)
        self.steps += 1
        return _Next(tokens.tolist(), chosen.tolist(), likeliest(logprobs, top) if top else [])

    def join(self, kept: torch.Tensor, other: _Tensors, room: int) -> None:
        """Keep the rows ``kept``, and append those of ``other``, which have one token so far."""
        self.batch.join(kept, other.batch, room)
        self.sampler.join(kept, self.steps, other.sampler)
        self.steps = 0

    def keep(self, kept: torch.Tensor) -> None:
        self.batch.keep(kept)
        self.sampler.keep(kept)


class BatchDecoder(Generic[Owner]):
    """Decodes rows together. It belongs to one thread, inside ``torch.inference_mode``.

    A row ends at an end token, at its own limit, or when ``ends(owner, answer)``, called after each of its tokens,
    returns True. Raises BrokenCheckpoint on logits that are not finite: then ``clear``.
    """

    def __init__(
        self,
        model: Any,
        *,
        end_ids: frozenset[int],
        pad_id: int,
        processors: Sequence[Any] = (),
        ends: Callable[[Owner, Answer], bool] | None = None,
        shrink_below: float = SHRINK_BELOW,
    ):
        self._model = model
        self._end_ids = end_ids
        self._pad_id = pad_id
        self._processors = processors
        self._ends = ends
        self._shrink_below = shrink_below
        self._rows: list[Row[Owner]] = []
        self._open = 0
        self._tensors: _Tensors | None = None

    @property
    def open_rows(self) -> list[Row[Owner]]:
        """Rows whose answers have not ended, in the order in which they joined."""
        return [row for row in self._rows if not row.answer.done]

    @property
    def is_idle(self) -> bool:
        return self._open == 0

    @property
    def steps_since_join(self) -> int:
        return self._tensors.steps if self._tensors else 0

    @property
    def can_be_joined(self) -> bool:
        """Whether the cache holds plain keys and values, which can be concatenated with those of other rows."""
        return self._tensors is None or self._tensors.batch.can_be_joined

    def join(self, rows: Sequence[Row[Owner]], known: Sequence[Known] | None = None) -> list[Row[Owner]]:
        """Prefill new rows and decode the next token of each; returns those whose answers ended with it.

        ``known`` are the states of all tokens but the last of each row, if a forward pass has computed them already.
        """
        room = max(row.room for row in (*self._rows, *rows))
        prompts = [row.prompt for row in rows]
        new = _Tensors(
            Batch(self._model, [row.token_ids for row in rows], self._pad_id, [row.room for row in rows], known),
            Sampler(prompts, self._processors, self._model.device, [len(row.answer.token_ids) for row in rows]),
        )
        self._open += len(rows)
        ended = self._extend(rows, new.next(_most_top(rows)))
        if self._tensors is None:
            self._tensors = new
        else:
            self._tensors.join(self._drop_ended(), new, room)
        self._rows = [*self._rows, *rows]
        self._shrink()
        return ended

    def step(self) -> list[Row[Owner]]:
        """Decode the next token of each row; returns the rows whose answers ended with it. No-op without rows."""
        if self._tensors is None:
            return []
        ended = self._extend(self._rows, self._tensors.next(_most_top(self._rows)))
        self._shrink()
        return ended

    def append(self, row: Row[Owner], tokens: Sequence[int], logprobs: Sequence[float]) -> None:
        """Append tokens that were computed elsewhere to a row that has not joined, up to the end of its answer."""
        _require_finite(logprobs)
        now = time.perf_counter()
        for token, logprob in zip(tokens, logprobs, strict=True):
            if not row.answer.done:
                self._append(row, token, logprob, now)

    def clear(self) -> None:
        """Drop all rows."""
        self._rows, self._open, self._tensors = [], 0, None

    def _extend(self, rows: Sequence[Row[Owner]], new: _Next) -> list[Row[Owner]]:
        _require_finite(new.logprobs)
        now = time.perf_counter()
        ended = []
        for place, row in enumerate(rows):
            if row.answer.done:
                continue
            if row.prompt.top_logprobs:
                row.answer.top_logprobs.append(new.top[place][: row.prompt.top_logprobs])
            if self._append(row, new.tokens[place], new.logprobs[place], now):
                ended.append(row)
        self._open -= len(ended)
        return ended

    def _append(self, row: Row[Owner], token: int, logprob: float, now: float) -> bool:
        """Whether the answer ends with this token."""
        answer = row.answer
        answer.token_ids.append(token)
        answer.logprobs.append(logprob)
        is_ended = self._ends is not None and self._ends(row.owner, answer)
        answer.stopped = is_ended or token in self._end_ids
        if answer.stopped or len(answer.token_ids) >= row.prompt.max_new_tokens:
            answer.done = True
            answer.latency_s = now - row.started
        return answer.done

    def _shrink(self) -> None:
        """Drop ended rows once there are many of them.

        This depends on the answers alone, so the same batch is computed in the same shapes, and bit for bit, again.
        """
        if self._open == 0:
            self.clear()
        elif self._tensors is not None and self._open <= self._shrink_below * len(self._rows):
            self._tensors.keep(self._drop_ended())

    def _drop_ended(self) -> torch.Tensor:
        """Indices of the rows that stay."""
        places = [place for place, row in enumerate(self._rows) if not row.answer.done]
        self._rows = [self._rows[place] for place in places]
        return torch.tensor(places, dtype=torch.long, device=self._model.device)


def _most_top(rows: Sequence[Row[Owner]]) -> int:
    """How many likeliest tokens the row that wants most asks for."""
    return max(row.prompt.top_logprobs for row in rows)


def _require_finite(logprobs: Sequence[float]) -> None:
    if not math.isfinite(sum(logprobs)):
        raise BrokenCheckpoint("the model computes NaN: its weights are broken, or its precision is too low.")


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    end_ids: frozenset[int],
    pad_id: int,
    timeout_s: float,
    max_logits: int,
    processors: Sequence[Any] = (),
    ends: Callable[[int, Answer], bool] | None = None,
    score_drafts: bool = True,
    on_step: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Answer all prompts in one batch. ``ends`` receives the index of a prompt in the list; ``on_step`` is called after
    each token and each part of the prefill, since a batch of a large model may take many minutes.

    Drafts are verified during prefill; with ``score_drafts`` False they are skipped while most are wrong. Raises
    BrokenCheckpoint on logits that are not finite, GenerationError after ``timeout_s``.
    """
    decoder = BatchDecoder(model, end_ids=end_ids, pad_id=pad_id, processors=processors, ends=ends)
    started = time.perf_counter()
    rows = [Row(place, prompt, started=started) for place, prompt in enumerate(prompts)]

    def require_time() -> None:
        if time.perf_counter() - started > timeout_s:
            raise GenerationError(f"a batch of {len(rows)} prompts took longer than {timeout_s:g} s.")

    known: dict[int, Known] = {}
    prefill = Prefill(model, end_ids=end_ids, pad_id=pad_id, processors=processors, max_logits=max_logits)
    for part in prefill.run(prompts, score_drafts):
        require_time()
        on_step()
        known |= _begin(decoder, rows, part)
    # Rows whose states were computed together stay adjacent, so that they are copied in one piece.
    unknown = [row for row in rows if not row.answer.done and row.owner not in known]
    waiting = [*(rows[place] for place in known), *unknown]
    if waiting:
        decoder.join(waiting, None if unknown else list(known.values()))
        known.clear()  # the cache has copied them
    while not decoder.is_idle:
        require_time()
        decoder.step()
        on_step()
    return [row.answer for row in rows]


def _begin(decoder: BatchDecoder[int], rows: Sequence[Row[int]], part: Prefilled) -> dict[int, Known]:
    """Append the tokens found by prefill. Returns the cached states, by index, of rows that have not ended."""
    found = zip(part.rows, part.token_ids, part.logprobs, part.draft_logprobs, strict=True)
    for place, token_ids, logprobs, draft_logprobs in found:
        rows[place].answer.draft_logprobs = draft_logprobs
        decoder.append(rows[place], token_ids, logprobs)
    left = [at for at, place in enumerate(part.rows) if not rows[place].answer.done]
    if part.states is None or not left:
        return {}
    states = [(keys[left], values[left]) for keys, values in part.states]
    return {part.rows[at]: (states, number) for number, at in enumerate(left)}


class Request(Protocol):
    """A request to ContinuousBatch. After running out of memory, an answer may start again from its first token."""

    @property
    def prompt(self) -> Prompt: ...

    def on_token(self, answer: Answer) -> bool:
        """Called after every token; True ends the answer."""
        ...

    def settle(self, generation: Generation) -> None: ...


Asker = TypeVar("Asker", bound=Request)


class ContinuousBatch(Generic[Asker]):
    """Requests that are answered together, each from the token at which it joins. It belongs to one thread.

    ``max_tokens`` limits rows times padded width, answers included; a single row always fits.
    """

    def __init__(self, model: Any, codec: ChatCodec, pad_id: int, *, max_rows: int, max_tokens: int):
        self._codec = codec
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._decoder: BatchDecoder[Asker] = BatchDecoder(
            model,
            end_ids=codec.end_ids,
            pad_id=pad_id,
            processors=codec.processors,
            ends=self._ends,
            shrink_below=SHRINK_BELOW_WHEN_JOINED,
        )

    @property
    def requests(self) -> list[Asker]:
        """Requests that are not answered yet, in the order in which they joined."""
        return [row.owner for row in self._decoder.open_rows]

    def fitting(self, prompts: Sequence[Prompt]) -> int:
        """How many of these prompts, counted from the first, may join now. At least one if no row is active."""
        under_way = [row.prompt for row in self._decoder.open_rows]
        if under_way and not self._may_join(len(prompts), len(under_way)):
            return 0
        width = max(map(_width, under_way), default=0)
        longest = 0
        for number, prompt in enumerate(prompts):
            rows = len(under_way) + number + 1
            width, longest = max(width, _width(prompt)), max(longest, len(prompt.token_ids))
            reads_too_much = number > 0 and (number + 1) * longest > MAX_PREFILL_TOKENS
            if rows > 1 and (rows > self._max_rows or rows * width > self._max_tokens or reads_too_much):
                return number
        return len(prompts)

    @torch.inference_mode()
    def advance(self, joining: Sequence[Asker]) -> list[Asker]:
        """Decode the next token of each active request, and the first token of each that joins.

        Returns the requests that did not fit in memory; they start again, before any other, in smaller batches. Raises
        BrokenCheckpoint on logits that are not finite, and GenerationError if the model fails; call ``clear`` then.
        """
        whole = [*self.requests, *joining]
        try:
            self._settle(self._decoder.step())
            if joining:
                self._settle(self._decoder.join([Row(request, request.prompt) for request in joining]))
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
        """Drop all requests, answered or not."""
        self._decoder.clear()

    def _may_join(self, waiting: int, under_way: int) -> bool:
        is_worth_it = JOIN_AFTER * waiting >= under_way or self._decoder.steps_since_join >= JOIN_AFTER
        return is_worth_it and self._decoder.can_be_joined

    def _ends(self, request: Asker, answer: Answer) -> bool:
        return request.on_token(answer) or self._codec.text.has_stop_string(answer.token_ids, request.prompt.decoding)

    def _settle(self, ended: Sequence[Row[Asker]]) -> None:
        for row in ended:
            row.owner.settle(self._codec.generation(row.prompt, row.answer))


def _width(prompt: Prompt) -> int:
    return len(prompt.token_ids) + prompt.max_new_tokens
