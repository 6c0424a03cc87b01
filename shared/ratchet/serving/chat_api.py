"""Chat completions in the format of the OpenAI API: requests, unsupported parameters, and answers.

Every answer names its checkpoint and states its confidence. The route is in chat_route, the queue in batcher.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ratchet.data.example import Message
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.lines import to_json_line
from ratchet.serving.http_errors import ApiError
from ratchet.serving.model_manager import LoadedCheckpoint
from ratchet.settings.serving import ServingSettings

MAX_MESSAGES = 256
DEFAULT_NEW_TOKENS = 256
"""Length limit of an answer if the client gives none: enough for the reasoning in the built-in tasks."""


def _joined_text(content: Any) -> Any:
    """Content parts of type text as one string."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise ValueError("only text is supported, as a string or in parts of type text")
    return "".join(part["text"] for part in content)


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else [] if stop is None else stop


def _as_system(role: Any) -> Any:
    return "system" if role == "developer" else role


class Turn(BaseModel):
    """One message of a request. Other fields, as in another server's answer, are ignored, except tool calls."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_as_system)]
    content: Annotated[str, BeforeValidator(_joined_text)]

    @model_validator(mode="before")
    @classmethod
    def _calls_no_tool(cls, turn: Any) -> Any:
        if isinstance(turn, dict) and (turn.get("tool_calls") or turn.get("function_call")):
            raise ValueError("turns with tool calls are not supported; describe the call and its result in words")
        return turn


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """Unsupported and unknown fields are errors (see check_supported).

    Without ``temperature`` the answer is greedy, as in the evaluation of the checkpoint.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    messages: list[Turn] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_as_list), Field(max_length=16)] = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = False

    @property
    def chat(self) -> Chat:
        return tuple(Message(role=turn.role, content=turn.content) for turn in self.messages)

    @property
    def characters(self) -> int:
        return sum(len(turn.content) for turn in self.messages)

    @property
    def requested_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def decoding(self, settings: ServingSettings) -> Decoding:
        """The requested decoding. Raises a 400 ApiError for anything unsupported or over a limit."""
        check_supported(self.model_extra or {}, self.__class__.model_fields)
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "invalid_request", "stream_options: only with stream = true.", param="stream_options")
        if len(self.messages) > MAX_MESSAGES:
            raise ApiError(400, "too_many_messages", f"at most {MAX_MESSAGES} messages are allowed.", param="messages")
        if "" in self.stop:
            raise ApiError(400, "invalid_request", "stop: an empty string stops nothing.", param="stop")
        asked = self.requested_tokens or min(DEFAULT_NEW_TOKENS, settings.max_new_tokens)
        if asked > settings.max_new_tokens:
            raise ApiError(
                400, "too_many_tokens", f"max_tokens is at most {settings.max_new_tokens}.", param="max_tokens"
            )
        return Decoding(
            max_new_tokens=asked,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
            stop=tuple(self.stop),
        )


IGNORED = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"}
)
"""They describe the client, not the answer, so they are accepted and ignored."""

_SAMPLING = "not supported; use temperature, top_p and seed"
_TOOLS = "tools are not supported; describe them in a turn, and read the call in the answer"
_ONE_ANSWER = "one answer per request is supported; send more requests, with other seeds, for more"
_TEXT = "answers are plain text; ask for a format in a turn"

UNSUPPORTED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "n": (_ONE_ANSWER, (1,)),
    "best_of": (_ONE_ANSWER, (1,)),
    "top_logprobs": ("not supported; logprobs gives those of the chosen tokens", (0,)),
    "response_format": (_TEXT, ({"type": "text"},)),
    "modalities": (_TEXT, (["text"],)),
    "audio": (_TEXT, ()),
    "tools": (_TOOLS, ([],)),
    "tool_choice": (_TOOLS, ("none", "auto")),
    "functions": (_TOOLS, ([],)),
    "function_call": (_TOOLS, ("none", "auto")),
    "web_search_options": (_TOOLS, ()),
    "frequency_penalty": (_SAMPLING, (0,)),
    "presence_penalty": (_SAMPLING, (0,)),
    "repetition_penalty": (_SAMPLING, (1,)),
    "logit_bias": (_SAMPLING, ({},)),
    "top_k": (_SAMPLING, (-1, 0)),
    "min_p": (_SAMPLING, (0,)),
    "prediction": ("not supported; leave it out", ()),
    "reasoning_effort": ("not supported; the profile used in training decides how the model reasons", ("none",)),
    "verbosity": ("not supported; max_tokens limits an answer", ("medium",)),
}
"""The reason for refusing each field, and the values without effect, which are accepted, as is null."""


def check_supported(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise a 400 ApiError that names the first unsupported or unknown field of a request."""
    for name, value in given.items():
        if value is None or name in IGNORED or _has_no_effect(name, value):
            continue
        if name in UNSUPPORTED:
            raise ApiError(400, "unsupported", f"{name}: {UNSUPPORTED[name][0]}.", param=name)
        near = get_close_matches(name, [*known, *UNSUPPORTED, *IGNORED], n=1)
        hint = f"did you mean {near[0]}?" if near else "leave it out."
        raise ApiError(400, "unknown_field", f"{name}: unknown field; {hint}", param=name)


def _has_no_effect(name: str, value: Any) -> bool:
    return name in UNSUPPORTED and not isinstance(value, bool) and value in UNSUPPORTED[name][1]


CHECKPOINT_HEADER = "x-ratchet-checkpoint"
DONE = "data: [DONE]\n\n"


class ChatAnswer:
    """Builds the bodies of one answer, whole or in chunks."""

    def __init__(self, model: str, loaded: LoadedCheckpoint, with_logprobs: bool, certainty: Certainty | None = None):
        self._model = model
        self._loaded = loaded
        self._certainty = certainty
        self._with_logprobs = with_logprobs
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())

    @property
    def headers(self) -> dict[str, str]:
        return {CHECKPOINT_HEADER: self._loaded.checkpoint_id}

    def whole(self, generation: Generation) -> dict[str, Any]:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": generation.text},
            "logprobs": self._logprobs(generation.token_ids, generation.token_logprobs),
            "finish_reason": generation.finish_reason,
        }
        return {**self._frame("chat.completion", generation), "choices": [choice], "usage": usage(generation)}

    def chunk(
        self,
        text: str,
        token_ids: Sequence[int] = (),
        logprobs: Sequence[float] = (),
        finish_reason: str | None = None,
        *,
        first: bool = False,
        whole: Generation | None = None,
    ) -> str:
        """One server-sent event with the new part of the answer; ``whole`` is passed with the last one."""
        delta: dict[str, str] = {"content": text} if text or first or finish_reason is None else {}
        if first:
            delta["role"] = "assistant"
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": self._logprobs(token_ids, logprobs) if token_ids else None,
            "finish_reason": finish_reason,
        }
        return event({**self._frame("chat.completion.chunk", whole), "choices": [choice]})

    def usage_chunk(self, generation: Generation) -> str:
        return event({**self._frame("chat.completion.chunk"), "choices": [], "usage": usage(generation)})

    def _frame(self, kind: str, whole: Generation | None = None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": self._loaded.fingerprint,
            "ratchet": {
                "checkpoint": self._loaded.checkpoint_id,
                "weights": self._loaded.weights,
                **(self._stated(whole) if whole is not None else {}),
            },
        }

    def _stated(self, whole: Generation) -> dict[str, Any]:
        """The confidence, by the calibration deployed with the checkpoint; None without one."""
        if self._certainty is None:
            return {"confidence": None, "should_abstain": False}
        confidence = self._certainty.confidence(whole.token_logprobs)
        return {"confidence": confidence, "should_abstain": self._certainty.should_abstain(confidence)}

    def _logprobs(self, token_ids: Sequence[int], logprobs: Sequence[float]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        pieces = self._loaded.generator.text.pieces(token_ids)
        content = [
            {"token": piece, "logprob": logprob, "bytes": _bytes(piece), "top_logprobs": []}
            for piece, logprob in zip(pieces, logprobs, strict=True)
        ]
        return {"content": content, "refusal": None}


def _bytes(piece: str) -> list[int] | None:
    """None for a token that is only part of a character."""
    return None if "\ufffd" in piece else list(piece.encode())


def usage(generation: Generation) -> dict[str, int]:
    generated = len(generation.token_ids)
    return {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": generation.prompt_tokens + generated,
    }


def event(body: dict[str, Any]) -> str:
    """A body as one server-sent event."""
    return f"data: {to_json_line(body)}\n\n"
