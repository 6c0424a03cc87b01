"""A chat completion as clients ask for it, in the shape of the OpenAI API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ratchet.data.example import Message
from ratchet.inference.generator import Chat, Decoding
from ratchet.serving.foreign_fields import refuse_foreign
from ratchet.serving.refusal import Refusal
from ratchet.settings.serving import ServingSettings


def _joined_text(content: Any) -> Any:
    """Content parts of type text as one string."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise ValueError("only text is read, as a string or in parts of type text")
    return "".join(part["text"] for part in content)


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else [] if stop is None else stop


def _as_system(role: Any) -> Any:
    return "system" if role == "developer" else role


class Turn(BaseModel):
    """What else came with an answer of another server is left aside, but for calls of tools."""

    model_config = ConfigDict(extra="ignore", strict=True)

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_as_system)]
    content: Annotated[str, BeforeValidator(_joined_text)]

    @model_validator(mode="before")
    @classmethod
    def _calls_no_tool(cls, turn: Any) -> Any:
        if isinstance(turn, dict) and (turn.get("tool_calls") or turn.get("function_call")):
            raise ValueError("a turn that calls tools is not read; say in words what was called and what came of it")
        return turn


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """Fields that cannot be honoured are refused, and so are those that nobody knows (see foreign_fields).

    Without ``temperature`` the answer is greedy: it is what the checkpoint was judged on.
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
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def decoding(self, settings: ServingSettings) -> Decoding:
        """The settings asked for. Raises a 400 Refusal for what is over a limit or not offered."""
        refuse_foreign(self.model_extra or {}, self.__class__.model_fields)
        if self.stream_options is not None and not self.stream:
            raise Refusal(400, "invalid_request", "stream_options: only with stream = true.", param="stream_options")
        if len(self.messages) > settings.max_messages:
            raise Refusal(
                400, "too_many_messages", f"at most {settings.max_messages} messages are read.", param="messages"
            )
        if "" in self.stop:
            raise Refusal(400, "invalid_request", "stop: an empty string stops nothing.", param="stop")
        asked = self.asked_tokens or settings.default_new_tokens
        if asked > settings.max_new_tokens:
            raise Refusal(
                400, "too_many_tokens", f"max_tokens is at most {settings.max_new_tokens}.", param="max_tokens"
            )
        return Decoding(
            max_new_tokens=asked,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
            stop=tuple(self.stop),
        )
