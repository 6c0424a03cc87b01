"""Chat completions in the format of the OpenAI API: requests and answers.

Every answer names its checkpoint and states its confidence. The route is in chat_route, the fields that other requests
have too in request_fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ratchet.data.example import Message
from ratchet.inference.generator import Chat, Decoding, Generation, finite
from ratchet.serving.answer_body import Certain, Frame, Piece, TokenRange, event, usage
from ratchet.serving.http_errors import ApiError
from ratchet.serving.model_manager import LoadedCheckpoint
from ratchet.serving.request_fields import MOST_TOP_LOGPROBS, SampledRequest, Whole
from ratchet.settings.serving import ServingSettings

MAX_MESSAGES = 256

_NO_TOOLS = "turns with tool calls are not supported; describe the call and its result in words"


def _joined_text(content: Any) -> Any:
    """Content parts of type text as one string."""
    if not isinstance(content, list):
        return content
    for part in content:
        is_text = isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
        if not is_text:
            raise ValueError("only text is supported, as a string or in parts of type text")
    return "".join(part["text"] for part in content)


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
        if isinstance(turn, dict):
            is_result = turn.get("role") in ("tool", "function")
            if is_result or turn.get("tool_calls") or turn.get("function_call"):
                raise ValueError(_NO_TOOLS)
        return turn


class ChatRequest(SampledRequest):
    """Unsupported and unknown fields are errors (see request_fields)."""

    messages: list[Turn] = Field(min_length=1)
    max_tokens: Whole | None = Field(None, ge=1)
    max_completion_tokens: Whole | None = Field(None, ge=1)
    logprobs: bool | None = False
    top_logprobs: Whole | None = Field(None, ge=0, le=MOST_TOP_LOGPROBS)
    chat_template_kwargs: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None

    @property
    def chat(self) -> Chat:
        return tuple(Message(role=turn.role, content=turn.content) for turn in self.messages)

    @property
    def characters(self) -> int:
        return sum(len(turn.content) for turn in self.messages)

    @property
    def requested_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def task(self) -> str | None:
        """The name of the task that the question is of, if the client states it in ``metadata``."""
        named = (self.metadata or {}).get("task")
        return named if isinstance(named, str) else None

    def decoding(self, settings: ServingSettings) -> Decoding:
        if len(self.messages) > MAX_MESSAGES:
            raise ApiError(400, "too_many_messages", f"at most {MAX_MESSAGES} messages are allowed.", param="messages")
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "invalid_request", "top_logprobs: only with logprobs = true.", param="top_logprobs")
        wanted = (self.model_extra or {}).get("continue_final_message")
        if isinstance(wanted, bool) and wanted is not (self.messages[-1].role == "assistant"):
            said = "a last turn of the assistant is continued, and any other is answered; leave it out."
            raise ApiError(400, "unsupported", f"continue_final_message: {said}", param="continue_final_message")
        return super().decoding(settings)


class ChatAnswer:
    """AnswerBodies of a chat completion."""

    def __init__(self, request: ChatRequest, loaded: LoadedCheckpoint):
        self._frame = Frame(request.model, loaded, "chatcmpl")
        self._with_logprobs = bool(request.logprobs)

    @property
    def headers(self) -> dict[str, str]:
        return self._frame.headers

    def whole(self, generations: Sequence[Generation], certain: Certain) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": generation.text},
                "logprobs": self._logprobs(TokenRange.of(generation)),
                "finish_reason": generation.finish_reason,
            }
            for index, generation in enumerate(generations)
        ]
        return {**self._frame.body("chat.completion", certain), "choices": choices, "usage": usage(generations)}

    def first(self, index: int) -> str:
        return self._event(index, {"content": "", "role": "assistant"})

    def chunk(self, piece: Piece) -> str:
        delta = {"content": piece.text} if piece.text or piece.finish_reason is None else {}
        logprobs = self._logprobs(piece.tokens) if piece.tokens.ids else None
        return self._event(piece.index, delta, logprobs, piece.finish_reason, piece.certain)

    def usage_chunk(self, generations: Sequence[Generation]) -> str:
        return event({**self._frame.body("chat.completion.chunk"), "choices": [], "usage": usage(generations)})

    def _event(
        self,
        index: int,
        delta: dict[str, str],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        certain: Certain | None = None,
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return event({**self._frame.body("chat.completion.chunk", certain), "choices": [choice]})

    def _logprobs(self, tokens: TokenRange) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        content = []
        for place, (token_id, logprob) in enumerate(zip(tokens.ids, tokens.logprobs, strict=True)):
            top = tokens.top[place] if place < len(tokens.top) else ()
            content.append(
                {**self._token(token_id, logprob or 0.0), "top_logprobs": [self._token(*one) for one in top]}
            )
        return {"content": content, "refusal": None}

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        [text] = self._frame.pieces([token_id])
        # A token that is only part of a character has no bytes of its own.
        return {"token": text, "logprob": finite(logprob), "bytes": None if "\ufffd" in text else list(text.encode())}
