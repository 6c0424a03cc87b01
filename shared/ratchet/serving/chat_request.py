"""A chat completion as clients ask for it, in the shape of the OpenAI API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ratchet.data.example import Message
from ratchet.inference.generator import Chat, Decoding
from ratchet.serving.refusal import Refusal
from ratchet.settings.serving import ServingSettings


def _joined_text(content: Any) -> Any:
    """Content parts of type text as one string."""
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        return "".join(str(part.get("text", "")) for part in content)
    return content


def _listed(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop or []


class Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined_text)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """Fields that Ratchet does not know are ignored; those it cannot honour are refused.

    Without ``temperature`` the answer is greedy: it is what the checkpoint was judged on.
    """

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[Turn] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: Annotated[list[str], BeforeValidator(_listed), Field(max_length=16)] = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = None
    n: int | None = 1

    @property
    def chat(self) -> Chat:
        return tuple(Message(role=turn.role, content=turn.content) for turn in self.messages)

    @property
    def asked_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def decoding(self, settings: ServingSettings) -> Decoding:
        """The settings asked for. Raises a 400 Refusal for what is over a limit or not offered."""
        if self.n not in (None, 1):
            raise Refusal(400, "unsupported", "n: one answer a request is offered; ask again for more.")
        if self.top_logprobs:
            raise Refusal(400, "unsupported", "top_logprobs is not offered; logprobs is.")
        if len(self.messages) > settings.max_messages:
            raise Refusal(400, "too_many_messages", f"at most {settings.max_messages} messages are read.")
        if "" in self.stop:
            raise Refusal(400, "invalid_request", "stop: an empty string stops nothing.")
        asked = self.asked_tokens or settings.default_new_tokens
        if asked > settings.max_new_tokens:
            raise Refusal(400, "too_many_tokens", f"max_tokens is at most {settings.max_new_tokens}.")
        return Decoding(
            max_new_tokens=asked,
            temperature=self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
            stop=tuple(self.stop),
        )
