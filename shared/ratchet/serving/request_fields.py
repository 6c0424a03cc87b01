"""The fields that requests for chat and text completions share, and what becomes of all others.

A value without an effect on the answer is accepted, whatever the field. A value that would change the answer, and that
no engine here obeys, is refused by name. It knows no model: what depends on one is checked in completions_route and
chat_route.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ratchet.inference.generator import Decoding
from ratchet.serving.http_errors import ApiError
from ratchet.settings.serving import ServingSettings

DEFAULT_NEW_TOKENS = 256
"""Length limit of an answer if the client gives none: enough for the reasoning in the built-in tasks."""

MOST_ANSWERS = 128
MOST_TOP_LOGPROBS = 20
"""Both as in the OpenAI API."""


def _whole(value: Any) -> Any:
    """A number without a fraction as an integer: some clients send 64.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _as_list(stop: Any) -> Any:
    """Stop strings as a list, without the empty ones, which stop nothing."""
    texts = [stop] if isinstance(stop, str) else stop or []
    return [text for text in texts if text not in ("", None)] if isinstance(texts, list) else texts


Whole = Annotated[int, BeforeValidator(_whole)]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = False


class SampledRequest(BaseModel):
    """Without ``temperature`` the answer is greedy, as in the evaluation of the checkpoint."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    max_tokens: Whole | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, ge=0, le=1)
    n: Whole | None = Field(None, ge=1, le=MOST_ANSWERS)
    seed: Whole | None = None
    stop: Annotated[list[str], BeforeValidator(_as_list), Field(max_length=16)] = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None

    @property
    def answers(self) -> int:
        """Answers to each prompt."""
        return self.n or 1

    @property
    def requested_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def output_format(self) -> str | None:
        """The requested format of the answer as JSON; None for plain text."""
        if self.response_format in (None, {"type": "text"}):
            return None
        return json.dumps(self.response_format)

    def decoding(self, settings: ServingSettings) -> Decoding:
        """The requested decoding; a length above ``serving.max_new_tokens`` is reduced to it.

        Raises a 400 ApiError for a field that is not supported.
        """
        check_supported(self.model_extra or {}, type(self).model_fields)
        asked = self.requested_tokens
        is_greedy = self.top_p == 0  # the smallest set of tokens is the likeliest one
        return Decoding(
            max_new_tokens=max(1, min(DEFAULT_NEW_TOKENS if asked is None else asked, settings.max_new_tokens)),
            temperature=0.0 if is_greedy else self.temperature or 0.0,
            top_p=self.top_p or 1.0,
            seed=self.seed or 0,
            stop=tuple(self.stop),
        )


IGNORED = frozenset(
    {
        "cache_prompt",
        "metadata",
        "parallel_tool_calls",
        "priority",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "timings_per_token",
        "user",
    }
)
"""They describe the client or the server, not the answer, so they are accepted and ignored."""

_SAMPLING = "not supported; use temperature, top_p and seed"
_TOOLS = "tools are not supported; describe them in a turn, and read the call in the answer"
_TEXT = "answers are plain text; ask for a format in a turn"
_TEMPLATE = "not supported; the template and profile of the training are applied to the turns"
_LENGTH = "not supported; max_tokens and stop limit an answer"

UNSUPPORTED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "best_of": ("not supported; n gives several answers", (1,)),
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
    "repeat_penalty": (_SAMPLING, (1,)),
    "length_penalty": (_SAMPLING, (1,)),
    "no_repeat_ngram_size": (_SAMPLING, (0,)),
    "logit_bias": (_SAMPLING, ({}, [])),
    "top_k": (_SAMPLING, (-1, 0)),
    "min_p": (_SAMPLING, (0,)),
    "typical_p": (_SAMPLING, (1,)),
    "mirostat": (_SAMPLING, (0,)),
    "use_beam_search": (_SAMPLING, (False,)),
    "min_tokens": (_LENGTH, (0,)),
    "ignore_eos": (_LENGTH, (False,)),
    "stop_token_ids": (_LENGTH, ([],)),
    "skip_special_tokens": ("not supported; the text of an answer has no special tokens", (True,)),
    "add_generation_prompt": (_TEMPLATE, (True,)),
    "continue_final_message": ("not needed; a last turn of the assistant is continued", (True, False)),
    "prediction": ("not supported; leave it out", ()),
    "reasoning_effort": ("not supported; the profile used in training decides how the model reasons", ("none",)),
    "verbosity": ("not supported; max_tokens limits an answer", ("medium",)),
    "suffix": ("not supported; the model continues a prompt, and fills no gap", ("",)),
    "echo": ("not supported for chats; /v1/completions has it", (False,)),
}
"""The reason for refusing each field, and the values without effect, which are accepted, as is null."""


def check_supported(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise a 400 ApiError that names the first unsupported or unknown field of a request."""
    ignored = IGNORED
    if "none" in (given.get("tool_choice"), given.get("function_call")):
        ignored |= {"tools", "functions"}  # a client that wants none called gets the answer as without them
    if given.get("continue_final_message") is True:
        ignored |= {"add_generation_prompt"}  # which has to be false beside it, for vLLM and transformers
    for name, value in given.items():
        if value is None or name in ignored or _has_no_effect(name, value):
            continue
        if name in UNSUPPORTED:
            raise ApiError(400, "unsupported", f"{name}: {UNSUPPORTED[name][0]}.", param=name)
        near = get_close_matches(name, [*known, *UNSUPPORTED, *IGNORED], n=1)
        hint = f"did you mean {near[0]}?" if near else "leave it out."
        raise ApiError(400, "unknown_field", f"{name}: unknown field; {hint}", param=name)


def _has_no_effect(name: str, value: Any) -> bool:
    """Whether it is one of the values without effect; True and 1, which Python holds equal, are told apart."""
    neutral = UNSUPPORTED.get(name, ("", ()))[1]
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)
