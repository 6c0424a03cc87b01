"""Speculative decoding with expected answers: how far a model says them by itself is read off in one forward pass.

A draft (Prompt.draft) is never taken on trust: every token of the answer is the model's own pick after the tokens
before it, and the first that differs from the draft ends the use of it (Leviathan, Kalman and Matias 2023, with a
draft that is a text). So a draft changes how long an answer takes, and not what is answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ratchet.inference.kv_batch import States, states_of
from ratchet.inference.sampling import Prompt, Sampler

_TOKENS_AT_ONCE = {"cpu": 2048}
"""Larger forward passes fall out of a CPU's cache; elsewhere they are as large as the logits may be."""


@dataclass(frozen=True)
class Checked:
    """What a model says of the draft of one row (an index into the prompts).

    ``token_ids`` are its picks up to the first that differs from the draft, that one included, with their
    log-probabilities; ``draft_logprobs`` are those of the draft's own tokens, all of them. ``states`` are those of the
    prompt and the draft, where the model's cache can be cut.
    """

    row: int
    token_ids: list[int]
    logprobs: list[float]
    draft_logprobs: list[float]
    states: States | None


def check_drafts(
    model: Any, prompts: Sequence[Prompt], *, pad_id: int, processors: Sequence[Any], most_logits: int
) -> Iterator[Checked]:
    """Ask of every prompt that has a draft; rows of like length share a forward pass of ``most_logits`` logits."""
    rows = [row for row, prompt in enumerate(prompts) if prompt.draft]
    rows.sort(key=lambda row: (_width(prompts[row]), prompts[row].token_ids))
    most = min(_TOKENS_AT_ONCE.get(model.device.type, most_logits), most_logits // model.config.vocab_size)
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end + 1 - start) * _width(prompts[rows[end]]) <= most:
            end += 1
        part = rows[start:end]
        yield from _check(model, part, [prompts[row] for row in part], pad_id, processors)
        start = end


def _width(prompt: Prompt) -> int:
    return len(prompt.token_ids) + len(prompt.draft) - 1


def _check(
    model: Any, rows: Sequence[int], prompts: Sequence[Prompt], pad_id: int, processors: Sequence[Any]
) -> Iterator[Checked]:
    """One forward pass. Padding stands on the right, where causal attention cannot see it: no mask."""
    width = max(map(_width, prompts))
    tokens = [[*prompt.token_ids, *prompt.draft[:-1]] for prompt in prompts]
    inputs = torch.tensor([row + [pad_id] * (width - len(row)) for row in tokens], device=model.device)
    first = min(len(prompt.token_ids) for prompt in prompts) - 1
    output = model(input_ids=inputs, use_cache=True, logits_to_keep=width - first)
    logits = output.logits.float()
    steps = max(len(prompt.draft) for prompt in prompts)
    begins = torch.tensor([len(prompt.token_ids) - 1 - first for prompt in prompts], device=model.device)
    places = (begins[:, None] + torch.arange(steps, device=model.device)).clamp(max=width - first - 1)
    padded = [[*prompt.draft, *[pad_id] * (steps - len(prompt.draft))] for prompt in prompts]
    drafts = torch.tensor(padded, device=model.device)
    picks = _picks(logits, places, prompts, drafts, pad_id, processors)
    norms = logits.logsumexp(-1).gather(1, places)
    at = torch.arange(len(rows), device=model.device)[:, None]
    states: Sequence[States | None] = states_of(output.past_key_values) or [None] * len(rows)
    found = zip(
        rows,
        prompts,
        picks.tolist(),
        (logits[at, places, picks] - norms).tolist(),
        (logits[at, places, drafts] - norms).tolist(),
        (picks == drafts).long().cumprod(1).sum(1).tolist(),
        states,
        strict=True,
    )
    for row, prompt, picked, logprobs, drafted, same, known in found:
        length = len(prompt.draft)
        said = min(same + 1, length)
        yield Checked(row, picked[:said], logprobs[:said], drafted[:length], known)


def _picks(
    logits: torch.Tensor,
    places: torch.Tensor,
    prompts: Sequence[Prompt],
    drafts: torch.Tensor,
    pad_id: int,
    processors: Sequence[Any],
) -> torch.Tensor:
    """Token ids [rows, steps]: what comes next after the prompt and each part of the draft."""
    sampler = Sampler(prompts, processors, logits.device)
    if sampler.is_plain:
        return logits.argmax(-1).gather(1, places)
    width = max(len(prompt.token_ids) for prompt in prompts)
    heads = [[pad_id] * (width - len(prompt.token_ids)) + list(prompt.token_ids) for prompt in prompts]
    history = torch.cat([torch.tensor(heads, device=logits.device), drafts], dim=1)
    at = torch.arange(len(prompts), device=logits.device)
    steps = range(places.shape[1])
    picks = [sampler.pick(logits[at, places[:, step]], history[:, : width + step], step) for step in steps]
    return torch.stack(picks, dim=1)
