"""Text completions in the format of the OpenAI API: prompts without a chat template, with echo and log-probabilities.

Programs that compare log-likelihoods of given texts, as lm-evaluation-harness does, read them from an echoed prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from ratchet.inference.generator import Generation, TokenScores, finite
from ratchet.serving.answer_body import Certain, Frame, Piece, TokenRange, event, usage
from ratchet.serving.model_manager import LoadedCheckpoint
from ratchet.serving.request_fields import MOST_TOP_LOGPROBS, SampledRequest, Whole

MAX_PROMPTS = 256

DEFAULT_NEW_TOKENS = 16
"""As in the OpenAI API, where it is less than that of chats."""

PromptText = str | tuple[int, ...]
"""A prompt as text, or as token ids."""


class CompletionRequest(SampledRequest):
    """Unsupported and unknown fields are errors (see request_fields)."""

    prompt: str | list[Any]
    echo: bool | None = False
    logprobs: Whole | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    best_of: Whole | None = None

    @field_validator("prompt")
    @classmethod
    def _is_text_or_tokens(cls, prompt: str | list[Any]) -> str | list[Any]:
        parts = [prompt] if isinstance(prompt, str) or _is_tokens(prompt) else prompt
        if not parts or not all(isinstance(part, str) or _is_tokens(part) for part in parts):
            raise ValueError("a prompt is a text, a list of token ids, or a list of either; none may be empty")
        if len(parts) > MAX_PROMPTS:
            raise ValueError(f"at most {MAX_PROMPTS} prompts are allowed in one request")
        return prompt

    @field_validator("best_of")
    @classmethod
    def _chooses_nothing(cls, best_of: int | None, info: Any) -> int | None:
        if best_of not in (None, info.data.get("n") or 1):
            raise ValueError("not supported; n gives several answers")
        return best_of

    @property
    def prompts(self) -> list[PromptText]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        if _is_tokens(self.prompt):
            return [tuple(self.prompt)]
        return [part if isinstance(part, str) else tuple(part) for part in self.prompt]

    @property
    def characters(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def requested_tokens(self) -> int | None:
        return DEFAULT_NEW_TOKENS if self.max_tokens is None else self.max_tokens


def _is_tokens(part: Any) -> bool:
    return isinstance(part, list) and bool(part) and all(type(token) is int for token in part)


@dataclass(frozen=True)
class Echo:
    """A prompt that precedes its answer in a body; ``scores`` are those of its tokens, where they were asked for."""

    text: str
    token_ids: tuple[int, ...]
    scores: TokenScores | None

    @property
    def tokens(self) -> TokenRange:
        if self.scores is None:
            return TokenRange()
        return TokenRange(self.token_ids, self.scores.logprobs, self.scores.top)


class TextAnswer:
    """AnswerBodies of a text completion. ``echoes`` has the prompts, if they are wanted before their answers."""

    def __init__(self, request: CompletionRequest, loaded: LoadedCheckpoint, echoes: Sequence[Echo] = ()):
        self._frame = Frame(request.model, loaded, "cmpl")
        self._request = request
        self._echoes = echoes

    @property
    def headers(self) -> dict[str, str]:
        return self._frame.headers

    def whole(self, generations: Sequence[Generation], certain: Certain) -> dict[str, Any]:
        choices = [self._whole_choice(index, generation) for index, generation in enumerate(generations)]
        return {**self._frame.body("text_completion", certain), "choices": choices, "usage": self._usage(generations)}

    def first(self, index: int) -> str:
        echo = self._echo(index)
        return self._event(index, echo.text if echo else "", self._logprobs(echo.tokens, 0) if echo else None)

    def chunk(self, piece: Piece) -> str:
        echo = self._echo(piece.index)
        logprobs = self._logprobs(piece.tokens, len(echo.text) if echo else 0)
        return self._event(piece.index, piece.text, logprobs, piece.finish_reason, piece.certain)

    def usage_chunk(self, generations: Sequence[Generation]) -> str:
        return event({**self._frame.body("text_completion"), "choices": [], "usage": self._usage(generations)})

    def _whole_choice(self, index: int, generation: Generation) -> dict[str, Any]:
        echo, tokens = self._echo(index), TokenRange.of(generation)
        if echo and self._request.logprobs is not None:
            before = echo.tokens
            tokens = TokenRange(
                (*before.ids, *tokens.ids), (*before.logprobs, *tokens.logprobs), (*before.top, *tokens.top)
            )
        return {
            "index": index,
            "text": (echo.text if echo else "") + generation.text,
            "logprobs": self._logprobs(tokens, 0),
            "finish_reason": generation.finish_reason,
        }

    def _echo(self, index: int) -> Echo | None:
        return self._echoes[index // self._request.answers] if self._echoes else None

    def _usage(self, generations: Sequence[Generation]) -> dict[str, int]:
        return usage(generations, len(self._request.prompts))

    def _event(
        self,
        index: int,
        text: str,
        logprobs: dict[str, Any] | None,
        finish_reason: str | None = None,
        certain: Certain | None = None,
    ) -> str:
        choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
        return event({**self._frame.body("text_completion", certain), "choices": [choice]})

    def _logprobs(self, tokens: TokenRange, offset: int) -> dict[str, Any] | None:
        """``text_offset`` counts the characters of the single tokens from ``offset`` on."""
        if self._request.logprobs is None:
            return None
        pieces = self._frame.pieces(tokens.ids)
        offsets = []
        for piece in pieces:
            offsets.append(offset)
            offset += len(piece)
        return {
            "tokens": pieces,
            "token_logprobs": [None if logprob is None else finite(logprob) for logprob in tokens.logprobs],
            "top_logprobs": [self._top(place, tokens, pieces) for place in range(len(pieces))],
            "text_offset": offsets,
        }

    def _top(self, place: int, tokens: TokenRange, pieces: Sequence[str]) -> dict[str, float] | None:
        """The likeliest tokens by their text and, as in the OpenAI API, the chosen one; None for a first token."""
        logprob = tokens.logprobs[place]
        if logprob is None:
            return None
        likeliest = tokens.top[place] if place < len(tokens.top) else ()
        texts = self._frame.pieces([token for token, _ in likeliest])
        top: dict[str, float] = {}
        for text, value in zip(texts, (value for _, value in likeliest), strict=True):
            top.setdefault(text, finite(value))  # of tokens with the same text, parts of characters, the likeliest
        top.setdefault(pieces[place], finite(logprob))
        return top
