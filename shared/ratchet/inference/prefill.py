"""Prefill: the forward passes over prompts. A prompt's draft, an expected answer, is verified in the same pass.

Every token of an answer is the model's own choice given the tokens before it, and the first choice that differs from
the draft ends its use (speculative decoding: Leviathan, Kalman and Matias 2023, with a given text in place of a draft
model). So a draft changes how long an answer takes, never the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad

from ratchet.inference.generator import TokenScores, TopTokens
from ratchet.inference.kv_batch import States, can_be_cropped, prefill_cache, states_of
from ratchet.inference.sampling import Prompt, Sampler, argmax

_MAX_TOKENS = {"cpu": 2048}
"""Larger forward passes do not fit into a CPU's cache. On other devices only the number of logits limits a pass."""

_MAX_PAUSE = 8


@dataclass(frozen=True)
class Prefilled:
    """The result of one pass. ``rows`` are indices into the prompts.

    ``token_ids`` are the tokens picked up to and including the first that differs from the draft, ends the answer or
    reaches its limit, with their log-probabilities. ``draft_logprobs`` are those of all the draft's own tokens.
    ``states`` are keys and values of prompts and drafts, or None if the model's cache cannot be cropped.
    """

    rows: Sequence[int]
    token_ids: list[list[int]]
    logprobs: list[list[float]]
    draft_logprobs: list[list[float]]
    states: States | None


class Prefill:
    """Runs prompts, each followed by its draft, through the model."""

    def __init__(self, model: Any, *, end_ids: frozenset[int], pad_id: int, processors: Sequence[Any], max_logits: int):
        self._model = model
        self._ends = torch.tensor(sorted(end_ids), device=model.device)
        self._pad_id = pad_id
        self._processors = processors
        self._max_places = max_logits // model.config.get_text_config().vocab_size
        self._max_tokens = _MAX_TOKENS.get(model.device.type)

    def run(self, prompts: Sequence[Prompt], score_drafts: bool) -> Iterator[Prefilled]:
        """Prefill prompts, grouped by length. With ``score_drafts`` every draft is verified, even if most are wrong.

        On a CPU all prompts are prefilled here if the model's cache can be cropped. On other devices only those with
        drafts are, since one large pass of the decoding loop prefills the rest faster.
        """
        drafted = [row for row, prompt in enumerate(prompts) if prompt.draft]
        reads_all = self._max_tokens is not None and can_be_cropped(self._model)
        bare = [row for row, prompt in enumerate(prompts) if reads_all and not prompt.draft]
        backoff = DraftBackoff()
        for part in self._parts(prompts, drafted):
            if score_drafts or not reads_all or backoff.wants_drafts():
                prefilled = self._forward(part, [prompts[row] for row in part])
                yield prefilled
                accepted = sum(len(ids) for ids in prefilled.token_ids)
                backoff.record(accepted, sum(len(prompts[row].draft) for row in part))
            else:
                bare += part
        undrafted = {row: replace(prompts[row], draft=()) if prompts[row].draft else prompts[row] for row in bare}
        for part in self._parts(undrafted, bare):
            yield self._forward(part, [undrafted[row] for row in part])

    def _parts(self, prompts: Sequence[Prompt] | dict[int, Prompt], rows: Sequence[int]) -> Iterator[list[int]]:
        """Groups of rows in order of length, as large as the limits of tokens and logits allow; at least one row."""
        shape = {row: (_width(prompts[row]), prompts[row].token_ids) for row in rows}
        part: list[int] = []
        shortest = 0
        for row in sorted(rows, key=shape.__getitem__):
            width, count = shape[row][0], len(part) + 1
            least = min(shortest, len(shape[row][1])) if part else len(shape[row][1])
            over = self._max_tokens is not None and count * width > self._max_tokens
            if part and (over or count * (width - least + 1) > self._max_places):
                yield part
                part, least = [], len(shape[row][1])
            part.append(row)
            shortest = least
        if part:
            yield part

    def _forward(self, rows: Sequence[int], prompts: Sequence[Prompt]) -> Prefilled:
        """One forward pass. Padding is on the right, where causal attention cannot see it, so it needs no mask."""
        device, steps = self._model.device, max(max(len(prompt.draft) for prompt in prompts), 1)
        inputs = self._padded([[*prompt.token_ids, *prompt.draft[:-1]] for prompt in prompts])
        width = inputs.shape[1]
        first = min(len(prompt.token_ids) for prompt in prompts) - 1
        cache = prefill_cache(self._model)
        output = self._model(input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=width - first)
        logits = output.logits.float()
        begins = torch.tensor([len(prompt.token_ids) - 1 - first for prompt in prompts], device=device)
        places = (begins[:, None] + torch.arange(steps, device=device)).clamp(max=width - first - 1)
        drafts = self._padded([prompt.draft for prompt in prompts], steps)
        picks = self._picks(logits, places, prompts, drafts)
        logprobs = logits.log_softmax(-1)
        at = torch.arange(len(rows), device=device)[:, None]
        counts = self._accepted(picks, drafts, prompts).tolist()
        scores = logprobs[at, places, drafts].tolist()
        return Prefilled(
            rows,
            [ids[:count] for ids, count in zip(picks.tolist(), counts, strict=True)],
            [row[:count] for row, count in zip(logprobs[at, places, picks].tolist(), counts, strict=True)],
            [row[: len(prompt.draft)] for row, prompt in zip(scores, prompts, strict=True)],
            states_of(cache),
        )

    def _padded(self, rows: Sequence[Sequence[int]], width: int = 0) -> torch.Tensor:
        width = max(width, max(map(len, rows)))
        padded = [[*row, *[self._pad_id] * (width - len(row))] for row in rows]
        return torch.from_numpy(np.array(padded, dtype=np.int64)).to(self._model.device)

    def _accepted(self, picks: torch.Tensor, drafts: torch.Tensor, prompts: Sequence[Prompt]) -> torch.Tensor:
        """How many of each row's picks [rows, steps] belong to its answer."""
        lengths = torch.tensor([max(len(prompt.draft), 1) for prompt in prompts], device=picks.device)
        room = torch.tensor([prompt.max_new_tokens for prompt in prompts], device=picks.device)
        goes_on = (picks == drafts) & ~torch.isin(picks, self._ends)
        return torch.minimum(goes_on.long().cumprod(1).sum(1) + 1, torch.minimum(lengths, room))

    def _picks(
        self, logits: torch.Tensor, places: torch.Tensor, prompts: Sequence[Prompt], drafts: torch.Tensor
    ) -> torch.Tensor:
        """Token ids [rows, steps]: the model's next token after the prompt and each prefix of the draft."""
        sampler = Sampler(prompts, self._processors, logits.device)
        if sampler.is_plain:
            return argmax(logits).gather(1, places)
        width = max(len(prompt.token_ids) for prompt in prompts)
        heads = [[self._pad_id] * (width - len(prompt.token_ids)) + list(prompt.token_ids) for prompt in prompts]
        history = torch.cat([torch.tensor(heads, device=logits.device), drafts], dim=1)
        at = torch.arange(len(prompts), device=logits.device)
        steps = range(min(places.shape[1], max(prompt.max_new_tokens for prompt in prompts)))
        picks = [sampler.pick(logits[at, places[:, step]], history[:, : width + step], step) for step in steps]
        return pad(torch.stack(picks, dim=1), (0, places.shape[1] - len(steps)))


class DraftBackoff:
    """Whether drafts are worth verifying: on a CPU, a rejected token costs half as much as a decoded one.

    After a pass that accepts fewer than half of its draft tokens, the next 1, 2, 4, then 8 passes use no drafts, until
    one pays off again. This depends on the answers alone, not on time, so that a run is reproducible.
    """

    def __init__(self) -> None:
        self._pause = 0
        self._left = 0

    def wants_drafts(self) -> bool:
        """Whether the next pass verifies its drafts. Call it once for each pass."""
        self._left -= 1
        return self._left < 0

    def record(self, accepted: int, drafted: int) -> None:
        pays = 2 * accepted >= drafted
        self._pause = 0 if pays else min(_MAX_PAUSE, 2 * self._pause or 1)
        self._left = self._pause


def _width(prompt: Prompt) -> int:
    return len(prompt.token_ids) + max(len(prompt.draft) - 1, 0)


Scored = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its answer."""


@torch.inference_mode()
def score_batch(model: Any, rows: Sequence[Scored], pad_id: int) -> list[tuple[float, ...]]:
    """Natural-log probabilities of each answer's tokens, in one left-padded forward pass.

    Logits are computed at the positions of the answers only: rows × (longest answer + 1) × vocabulary.
    """
    logits, targets = _answer_logits(model, rows, pad_id)
    logprobs = logits.gather(2, targets)[..., 0] - logits.logsumexp(-1)
    return [tuple(row[len(row) - len(answer) :]) for row, (_, answer) in zip(logprobs.tolist(), rows, strict=True)]


@torch.inference_mode()
def score_texts(model: Any, texts: Sequence[Sequence[int]], pad_id: int, top: int) -> list[TokenScores]:
    """Each token of every text scored after those before it, and the ``top`` likeliest tokens at each position."""
    longer = [place for place, text in enumerate(texts) if len(text) > 1]
    scores = [TokenScores((None,) * len(text), ((),) * len(text)) for text in texts]
    if not longer:
        return scores
    logits, targets = _answer_logits(model, [(texts[place][:1], texts[place][1:]) for place in longer], pad_id)
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(2, targets)[..., 0].tolist()
    best = [likeliest(row, top) if top else [()] * len(row) for row in logprobs]
    for row, place in enumerate(longer):
        first = len(chosen[row]) - len(texts[place]) + 1
        scores[place] = TokenScores((None, *chosen[row][first:]), ((), *best[row][first:]))
    return scores


def likeliest(logprobs: torch.Tensor, count: int) -> list[TopTokens]:
    """The ``count`` likeliest tokens of each row [rows, vocabulary]."""
    values, tokens = logprobs.topk(min(count, logprobs.shape[-1]))
    return [tuple(zip(ids, row, strict=True)) for ids, row in zip(tokens.tolist(), values.tolist(), strict=True)]


def _answer_logits(model: Any, rows: Sequence[Scored], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [rows, longest answer, vocabulary] before each answer's tokens, right-aligned, and those tokens."""
    lengths = [len(prompt) + len(answer) for prompt, answer in rows]
    width = max(lengths)
    padded = [[pad_id] * (width - n) + [*p, *a] for (p, a), n in zip(rows, lengths, strict=True)]
    tokens = torch.tensor(padded, device=model.device)
    columns = torch.arange(width, device=model.device)
    mask = (columns >= (width - torch.tensor(lengths, device=model.device))[:, None]).long()
    kept = max(len(answer) for _, answer in rows) + 1
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=kept,
    )
    logits = output.logits[:, :-1].float()
    return logits, tokens[:, -logits.shape[1] :, None]
