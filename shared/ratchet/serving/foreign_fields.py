"""Fields of the OpenAI chat API, and of servers like it, that Ratchet's server does not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ratchet.serving.refusal import Refusal

LABELS = frozenset(
    {"metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"}
)
"""They say something about the client, and nothing about the answer: they are read over."""

_SAMPLING = "not offered; temperature, top_p and seed are what steers an answer"
_TOOLS = "no tools are called; describe them in a turn, and read the call in the answer"
_ONE_ANSWER = "one answer a request is offered; ask again, with another seed, for more"
_TEXT = "answers are plain text; ask for a form in a turn"

NEUTRAL: dict[str, tuple[str, tuple[Any, ...]]] = {
    "n": (_ONE_ANSWER, (1,)),
    "best_of": (_ONE_ANSWER, (1,)),
    "top_logprobs": ("not offered; logprobs is, of the tokens that were chosen", (0,)),
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
    "prediction": ("not offered; leave it out", ()),
    "reasoning_effort": ("not offered; the profile of the training says how the model thinks", ("none",)),
    "verbosity": ("not offered; max_tokens limits an answer", ("medium",)),
}
"""Why each is refused, and the values that change nothing and are accepted, null beside them."""


def refuse_foreign(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise a 400 Refusal that names the first field of a request which would have an effect elsewhere, or anywhere."""
    for name, value in given.items():
        if value is None or name in LABELS or _is_neutral(name, value):
            continue
        if name in NEUTRAL:
            raise Refusal(400, "unsupported", f"{name}: {NEUTRAL[name][0]}.", param=name)
        near = get_close_matches(name, [*known, *NEUTRAL, *LABELS], n=1)
        hint = f"did you mean {near[0]}?" if near else "leave it out."
        raise Refusal(400, "unknown_field", f"{name}: no field of a chat completion here; {hint}", param=name)


def _is_neutral(name: str, value: Any) -> bool:
    return name in NEUTRAL and not isinstance(value, bool) and value in NEUTRAL[name][1]
