"""Prompts, answers, and the choice of the next token, greedy or sampled.

The random draws of a prompt depend on its tokens and seed alone, so it gets the same answer in any batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import pad

from ratchet.inference.generator import Decoding, TopTokens


@dataclass(frozen=True)
class Prompt:
    """One prompt to answer. ``occurrence`` distinguishes the samples if the same prompt is given several times.

    ``draft`` is the expected answer as tokens; the part that is right saves time. ``top_logprobs`` is how many of the
    likeliest tokens are reported at each position of an answer in a ContinuousBatch. ``response_format`` is JSON of
    the OpenAI API, for engines that constrain answers.
    """

    token_ids: tuple[int, ...]
    max_new_tokens: int
    decoding: Decoding
    occurrence: int = 0
    draft: tuple[int, ...] = ()
    top_logprobs: int = 0
    response_format: str | None = None

    @cached_property
    def draws(self) -> torch.Tensor:
        """Uniform draws in [0, 1), one per new token, the same in any batch."""
        text = f"{self.decoding.seed}/{self.occurrence}/{self.token_ids}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.max_new_tokens, generator=generator, dtype=torch.float64)


@dataclass
class Answer:
    """The answer to a prompt so far. ``logprobs`` are those of the model, before temperature and logits processors.

    ``draft_logprobs`` are those of all tokens of the prompt's draft; ``top_logprobs`` are the likeliest tokens at each
    position, if the prompt asks for them.
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    done: bool = False
    latency_s: float = 0.0
    draft_logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[TopTokens] = field(default_factory=list)


_LEAST_TEMPERATURE = 1e-6
"""A lower one picks the likeliest token too, but logits that are divided by it may be infinite."""


class Sampler:
    """Picks the next token of every row; rows may differ in temperature and top_p.

    ``begun`` is the number of answer tokens that each row already has; zero by default.
    """

    def __init__(
        self, prompts: Sequence[Prompt], processors: Sequence[Any], device: torch.device, begun: Sequence[int] = ()
    ):
        self._processors = processors
        self._sampled = any(prompt.decoding.temperature > 0 for prompt in prompts)
        width = max(prompt.max_new_tokens for prompt in prompts) if self._sampled else 0
        draws = torch.zeros(len(prompts), width, dtype=torch.float64)
        for row, (prompt, skipped) in enumerate(zip(prompts, begun or [0] * len(prompts), strict=True)):
            if prompt.decoding.temperature > 0:
                draws[row, : prompt.max_new_tokens - skipped] = prompt.draws[skipped:]
        self._draws = draws.to(device, torch.float32)
        temperatures = [p.decoding.temperature and max(p.decoding.temperature, _LEAST_TEMPERATURE) for p in prompts]
        self._temperature = torch.tensor(temperatures, device=device)
        self._top_p = torch.tensor([p.decoding.top_p for p in prompts], device=device)

    @property
    def is_plain(self) -> bool:
        """Whether decoding is greedy, without logits processors."""
        return not self._sampled and not self._processors

    def keep(self, rows: torch.Tensor) -> None:
        self._draws = self._draws[rows]
        self._temperature = self._temperature[rows]
        self._top_p = self._top_p[rows]

    def join(self, rows: torch.Tensor, step: int, other: Sampler) -> None:
        """Keep these rows, which have used ``step`` draws, and append those of ``other``, which have used one.

        The next draw of both is step 0.
        """
        self.keep(rows)
        mine, theirs = self._draws[:, step:], other._draws[:, 1:]
        width = max(mine.shape[1], theirs.shape[1], 1)
        self._draws = torch.cat([pad(draws, (0, width - draws.shape[1])) for draws in (mine, theirs)])
        self._temperature = torch.cat([self._temperature, other._temperature])
        self._top_p = torch.cat([self._top_p, other._top_p])
        self._sampled = self._sampled or other._sampled

    def pick(self, logits: torch.Tensor, history: torch.Tensor, step: int) -> torch.Tensor:
        """Token ids [rows] from float32 logits [rows, vocabulary] and the tokens so far [rows, width]."""
        for processor in self._processors:
            logits = processor(history, logits.clone())
        greedy = argmax(logits)
        if not self._sampled:
            return greedy
        hot = self._temperature > 0
        scaled = logits / torch.where(hot, self._temperature, 1.0)[:, None]
        probabilities, tokens = scaled.softmax(-1).sort(dim=-1, descending=True, stable=True)
        drawn = self._draws[
            :, min(step, self._draws.shape[1] - 1)
        ]  # after the last draw only greedy and ended rows go on
        return torch.where(hot, _nucleus(probabilities, tokens, self._top_p, drawn), greedy)


def argmax(logits: torch.Tensor) -> torch.Tensor:
    """argmax along the last dimension, the first of equal maxima. On a CPU numpy is ten times as fast as torch."""
    return torch.from_numpy(logits.numpy().argmax(-1)) if logits.device.type == "cpu" else logits.argmax(-1)


def _nucleus(
    probabilities: torch.Tensor, tokens: torch.Tensor, top_p: torch.Tensor, draws: torch.Tensor
) -> torch.Tensor:
    """Inverse-CDF sampling from the smallest set of most likely tokens whose mass reaches top_p, at least one."""
    below = probabilities.cumsum(-1) - probabilities
    below[:, 0] = -1.0  # also a top_p that float32 rounds to zero leaves the likeliest
    kept = torch.where(below < top_p[:, None], probabilities, 0.0)
    mass = kept.cumsum(-1)
    place = torch.searchsorted(mass, (draws * mass[:, -1])[:, None], right=True)
    last = (kept > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(place, last))[:, 0]
