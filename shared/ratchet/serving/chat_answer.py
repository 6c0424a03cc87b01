"""Answers in the shape of the OpenAI API, each naming the checkpoint that gave it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Generation
from ratchet.lines import to_json_line
from ratchet.serving.fleet import Loaded

CHECKPOINT_HEADER = "x-ratchet-checkpoint"
DONE = "data: [DONE]\n\n"


class ChatAnswer:
    """Builds the bodies of one answer, whole or in chunks."""

    def __init__(self, model: str, loaded: Loaded, with_logprobs: bool, certainty: Certainty | None = None):
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
        """One server-sent event with what the answer has grown by; ``whole`` is given with the last one."""
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
        """How sure the answer is, on the calibration that was deployed with it; nothing is stated without one."""
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
    """None for a token that is only a part of a character."""
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
