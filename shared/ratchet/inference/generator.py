"""The Generator protocol, through which every part of Ratchet gets text from a model. It imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from ratchet.data.example import Message

Chat = tuple[Message, ...]

Reply = str | tuple[int, ...]
"""An answer to score: a text, whose end token is scored too, or its exact tokens."""


TopTokens = tuple[tuple[int, float], ...]
"""The likeliest tokens of one position with their natural-log probabilities, the likeliest first."""


@dataclass(frozen=True)
class TokenScores:
    """Natural-log probabilities of each token of a text after those before it (None for the first), and at each
    position the likeliest tokens, where they were asked for."""

    logprobs: tuple[float | None, ...]
    top: tuple[TopTokens, ...]


LEAST_LOGPROB = -9999.0
"""In place of minus infinity, which JSON does not have; OpenAI's API and vLLM use the same number."""


def finite(logprob: float | None) -> float:
    """The log-probability as a number that JSON can write; some servers write null for minus infinity."""
    return LEAST_LOGPROB if logprob is None or not math.isfinite(logprob) else max(logprob, LEAST_LOGPROB)


class Decoding(BaseModel):
    """Decoding settings. ``id`` is part of an evaluation record's key. Temperature 0 is greedy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    seed: int = 0
    stop: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()[:12]


class Generation(BaseModel):
    """One answer. ``token_logprobs`` (natural log) match ``token_ids``; the end token is included if generated.

    ``text`` has no special tokens. ``weights`` is the digest of the weights that answered. ``draft_logprobs`` are the
    log-probabilities of the draft that was given with the prompt, as ``score`` returns them, if it was verified.
    ``top_logprobs`` match ``token_ids`` too, if the prompt asked for the likeliest tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    latency_s: float
    weights: str
    draft_logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[TopTokens, ...] = ()
    reasoning_only: bool = False
    """Whether a server spent the whole answer on reasoning, which it keeps apart, so that ``text`` is empty."""

    answer_tokens: int = 0
    """Number of tokens as reported by a server; 0 if it reports none, or if ``token_ids`` is filled."""


Progress = Callable[[int, int], None]
"""Called with (done, total) after every batch."""


@runtime_checkable
class Generator(Protocol):
    """A model that answers chats. An error is a GenerationError, never an answer."""

    @property
    def weights(self) -> str:
        """Digest of the weights that will answer."""
        ...

    def generate(self, chats: Sequence[Chat], decoding: Decoding, progress: Progress | None = None) -> list[Generation]:
        """One answer per chat, in order. Batch boundaries depend on the chats alone, so that a run is reproducible."""
        ...

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        """Teacher-forced natural-log probabilities of each answer's tokens (and a text's end token), in order."""
        ...


class Conditions(Protocol):
    """Engine and hardware: the fields that are part of an evaluation record's key."""

    @property
    def engine(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def gpu_class(self) -> str: ...


class BatchGenerator(Generator, Protocol):
    """A Generator that hands on its answers as they come: a LocalGenerator or a VllmGenerator."""

    @property
    def hardware(self) -> Conditions: ...

    def report_steps_to(self, beat: Callable[[], None]) -> None:
        """Call ``beat`` while answers are being decoded, so that long work on a slow machine is seen to go on."""
        ...

    def refusals(self, chats: Sequence[Chat]) -> dict[int, str]:
        """Why a chat cannot be asked, by its index."""
        ...

    def batches(
        self,
        chats: Sequence[Chat],
        decoding: Decoding,
        done: frozenset[int] = frozenset(),
        drafts: Sequence[Reply | None] | None = None,
        score_drafts: bool = True,
    ) -> Iterator[tuple[tuple[int, ...], list[Generation]]]:
        """Indices into ``chats`` with their answers, some at a time. What is all in ``done`` is left out.

        ``drafts`` are the expected answers, whose log-probabilities an answer has with ``score_drafts``.
        """
        ...

    def in_batches_of(self, rows: int) -> BatchGenerator:
        """The same weights, with at most ``rows`` prompts decoded together."""
        ...
