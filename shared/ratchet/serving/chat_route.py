"""The route /v1/chat/completions: what a request asks of its checkpoint, and its answer, whole or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from ratchet.errors import GenerationError, RatchetError
from ratchet.inference.generator import Decoding, Generation
from ratchet.serving.answer_body import Certain
from ratchet.serving.answering import MAX_BODY_BYTES, Answering, EventStream, Work
from ratchet.serving.chat_api import ChatAnswer, ChatRequest
from ratchet.serving.http_errors import ApiError, read_body
from ratchet.serving.model_manager import LoadedCheckpoint
from ratchet.serving.stated_confidence import stated_by

if TYPE_CHECKING:
    from ratchet.inference.chat_codec import ChatCodec

PROMPT_VARIABLES = frozenset({"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"})
"""What a template is rendered from, and no variable of it."""


class ChatRoute:
    """Answers clients' chats from the checkpoint that is live when they arrive."""

    def __init__(self, answering: Answering):
        self._answering = answering
        self.router = APIRouter()
        self.router.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])

    async def complete(self, request: Request) -> Response:
        asked = await read_body(request, ChatRequest, MAX_BODY_BYTES)
        decoding = asked.decoding(self._answering.settings)
        streamed = bool(asked.stream)
        queued = await self._answering.queue(
            asked.model, asked.characters, lambda loaded: chat_work(loaded, asked, decoding), streamed=streamed
        )
        bodies = ChatAnswer(asked, queued.loaded)
        certain = self._certain(asked, decoding, queued.loaded)
        if not streamed:
            return await self._answering.whole(request, queued, bodies, certain)
        events = self._answering.events(queued, bodies, certain, with_usage=asked.wants_usage)
        return EventStream(events, queued, self._answering.metrics, bodies.headers)

    def _certain(
        self, asked: ChatRequest, decoding: Decoding, loaded: LoadedCheckpoint
    ) -> Callable[[Generation], Certain]:
        certainty = None if asked.output_format else self._answering.manager.certainty(loaded)
        return stated_by(certainty, asked.chat, asked.task, decoding)


def chat_work(loaded: LoadedCheckpoint, asked: ChatRequest, decoding: Decoding) -> Work:
    """The prompts of a request, one for each of its answers. Raises a 400 ApiError for what the model cannot do."""
    require_format(loaded, asked.output_format)
    codec = loaded.generator.codec
    variables = _variables(codec, asked.chat_template_kwargs or {})
    try:
        prompt = codec.prompt(asked.chat, decoding, variables=variables, continue_last=True)
    except GenerationError as error:
        raise ApiError(400, "context_length_exceeded", str(error), param="messages") from error
    except RatchetError as error:
        raise ApiError(400, "invalid_request", str(error), param="messages") from error
    prompt = replace(prompt, top_logprobs=asked.top_logprobs or 0, response_format=asked.output_format)
    return Work([replace(prompt, occurrence=number) for number in range(asked.answers)])


def _variables(codec: ChatCodec, given: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that the chat template reads. One that it does not read is refused, unless it only leaves something
    out, as ``enable_thinking: false`` does."""
    for name, value in given.items():
        if name in PROMPT_VARIABLES or (value and not codec.reads_variable(name)):
            why = "is set by the server" if name in PROMPT_VARIABLES else "is not read by this model's chat template"
            message = f"chat_template_kwargs: {name} {why}; leave it out."
            raise ApiError(400, "unsupported", message, param="chat_template_kwargs")
    return {name: value for name, value in given.items() if codec.reads_variable(name)}


def require_format(loaded: LoadedCheckpoint, output_format: str | None) -> None:
    """Raise a 400 ApiError for a format that the engine cannot hold answers to."""
    if output_format is not None and not loaded.generator.constrains_answers:
        raise ApiError(
            400,
            "unsupported",
            "response_format: the embedded engine does not constrain answers; serve with serving.engine = vllm, "
            "or ask for the format in a turn.",
            param="response_format",
        )
