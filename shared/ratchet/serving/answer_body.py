"""What the bodies of chat and text completions share: the frame, token counts, and events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ratchet.inference.generator import Generation, TopTokens
from ratchet.lines import to_json_line
from ratchet.serving.model_manager import LoadedCheckpoint

CHECKPOINT_HEADER = "x-ratchet-checkpoint"
DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Certain:
    """What an answer says of its own reliability; both None where nothing is calibrated for such a question."""

    confidence: float | None = None
    should_abstain: bool | None = None


@dataclass(frozen=True)
class TokenRange:
    """Some tokens of an answer, with their log-probabilities and, if asked for, the likeliest tokens at each."""

    ids: Sequence[int] = ()
    logprobs: Sequence[float | None] = ()
    top: Sequence[TopTokens] = ()

    @classmethod
    def of(cls, generation: Generation, start: int = 0) -> TokenRange:
        return cls(generation.token_ids[start:], generation.token_logprobs[start:], generation.top_logprobs[start:])


@dataclass(frozen=True)
class Piece:
    """The new part of one answer in a stream; ``finish_reason`` and ``certain`` come with the last."""

    index: int
    text: str
    tokens: TokenRange = TokenRange()
    finish_reason: str | None = None
    certain: Certain | None = None


class AnswerBodies(Protocol):
    """Builds the bodies of one request's answers, whole or as server-sent events."""

    @property
    def headers(self) -> dict[str, str]: ...

    def whole(self, generations: Sequence[Generation], certain: Certain) -> dict[str, Any]: ...

    def first(self, index: int) -> str:
        """The event that begins an answer."""
        ...

    def chunk(self, piece: Piece) -> str: ...

    def usage_chunk(self, generations: Sequence[Generation]) -> str: ...


class Frame:
    """The fields around the choices, which are the same in all bodies of one request."""

    def __init__(self, model: str, loaded: LoadedCheckpoint, prefix: str):
        self._model = model
        self.loaded = loaded
        self._id = f"{prefix}-{secrets.token_hex(12)}"
        self._created = int(time.time())

    @property
    def headers(self) -> dict[str, str]:
        return {CHECKPOINT_HEADER: self.loaded.checkpoint_id}

    def body(self, kind: str, certain: Certain | None = None) -> dict[str, Any]:
        stated = {} if certain is None else vars(certain)
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self.loaded.fingerprint,
            "ratchet": {"checkpoint": self.loaded.checkpoint_id, "weights": self.loaded.weights, **stated},
        }

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each single token."""
        return self.loaded.generator.text.pieces(token_ids)


def usage(generations: Sequence[Generation], prompts: int = 1) -> dict[str, int]:
    """Token counts. The answers are those of ``prompts`` prompts in order; each prompt counts once."""
    each = len(generations) // prompts
    asked = sum(generation.prompt_tokens for generation in generations[::each])
    generated = sum(len(generation.token_ids) for generation in generations)
    return {"prompt_tokens": asked, "completion_tokens": generated, "total_tokens": asked + generated}


def event(body: dict[str, Any]) -> str:
    """A body as one server-sent event."""
    return f"data: {to_json_line(body)}\n\n"
