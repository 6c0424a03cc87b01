"""Read a chat completion of the OpenAI shape, and take nothing else for an answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from ratchet.errors import GenerationError

_ERROR_TEXT = re.compile(r"\s*\[?(?:internal server )?(?:error|exception|traceback)\b\s*[]:(]", re.IGNORECASE)
"""Some servers put their own failures into the answer's place. Only log-probabilities prove that a model wrote it."""


@dataclass(frozen=True)
class ChatCompletion:
    """``weights`` is None where the server does not say what answered."""

    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: tuple[float, ...]
    prompt_tokens: int
    answer_tokens: int
    weights: str | None


def read_completion(response: httpx.Response, url: str) -> ChatCompletion:
    """Raises GenerationError, quoting the body, for whatever is not one whole answer."""
    try:
        body = response.json()
    except ValueError:
        raise GenerationError(f"{url}: status {response.status_code}, not JSON: {response.text[:300]!r}") from None
    if response.status_code != 200 or not isinstance(body, dict) or body.get("error"):
        raise GenerationError(f"{url}: status {response.status_code}: {_message(body)}")
    try:
        choice = body["choices"][0]
        text, finish_reason = choice["message"]["content"], choice["finish_reason"]
        logprobs = tuple(float(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or ())
        usage = body.get("usage") or {}
        prompt_tokens, answer_tokens = (int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise GenerationError(f"{url}: no chat completion ({error!r}): {str(body)[:300]}") from error
    if not isinstance(text, str):
        raise GenerationError(f"{url}: an answer without text: {str(choice)[:300]}")
    if finish_reason not in ("stop", "length"):
        raise GenerationError(f"{url}: the answer ended by {finish_reason!r}: {text[:200]!r}")
    if _ERROR_TEXT.match(text) and not logprobs:
        raise GenerationError(f"{url}: an error in place of an answer: {text[:300]!r}")
    return ChatCompletion(text, finish_reason, logprobs, prompt_tokens, answer_tokens, _weights(body))


def _weights(body: dict[str, Any]) -> str | None:
    told = body.get("ratchet")
    found = told.get("weights") if isinstance(told, dict) else None
    return found or body.get("system_fingerprint") or None


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", error) if isinstance(error, dict) else error or body)[:500]
