"""The route /v1/completions: prompts that the model continues as they are, and the scores of echoed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from ratchet.errors import GenerationError
from ratchet.inference.generator import Decoding, Generation, TokenScores
from ratchet.serving.answer_body import Certain
from ratchet.serving.answering import MAX_BODY_BYTES, Answering, EventStream, Queued, Work, cancelled_with_client
from ratchet.serving.chat_route import require_format
from ratchet.serving.completions_api import CompletionRequest, Echo, PromptText, TextAnswer
from ratchet.serving.http_errors import ApiError, read_body
from ratchet.serving.model_manager import LoadedCheckpoint
from ratchet.serving.pending import expiring


class CompletionsRoute:
    """Continues clients' prompts by the checkpoint that is live when they arrive."""

    def __init__(self, answering: Answering):
        self._answering = answering
        self.router = APIRouter()
        self.router.add_api_route("/v1/completions", self.complete, methods=["POST"])

    async def complete(self, request: Request) -> Response:
        asked = await read_body(request, CompletionRequest, MAX_BODY_BYTES)
        decoding = asked.decoding(self._answering.settings)
        if asked.max_tokens == 0 and asked.stream:
            raise ApiError(400, "invalid_request", "max_tokens: 0 leaves nothing to stream.", param="max_tokens")
        queued = await self._answering.queue(
            asked.model,
            asked.characters,
            lambda loaded: completion_work(loaded, asked, decoding),
            streamed=bool(asked.stream),
        )
        if asked.stream:
            return await self._stream(asked, queued)
        with cancelled_with_client(request, queued), expiring(*queued.all):
            scores = await self._answering.wait(queued.loaded, queued.scores)
            answers = await self._answering.wait(queued.loaded, queued.answers)
        generations = answers or _unasked(asked, queued.loaded)
        self._answering.count(queued, generations)
        bodies = TextAnswer(asked, queued.loaded, _echoes(asked, queued.loaded, scores))
        return JSONResponse(bodies.whole(generations, Certain()), headers=bodies.headers)

    async def _stream(self, asked: CompletionRequest, queued: Queued) -> Response:
        try:
            with expiring(*queued.all):
                scores = await self._answering.wait(queued.loaded, queued.scores)
        except ApiError:
            queued.cancel()
            raise
        bodies = TextAnswer(asked, queued.loaded, _echoes(asked, queued.loaded, scores))
        events = self._answering.events(queued, bodies, lambda _answer: Certain(), with_usage=asked.wants_usage)
        return EventStream(events, queued, self._answering.metrics, bodies.headers)


def completion_work(loaded: LoadedCheckpoint, asked: CompletionRequest, decoding: Decoding) -> Work:
    """The prompts to continue and to score. Raises a 400 ApiError for what the model cannot do."""
    require_format(loaded, asked.output_format)
    try:
        texts = [_token_ids(loaded, prompt) for prompt in asked.prompts]
        prompts = [] if asked.max_tokens == 0 else [loaded.generator.codec.text_prompt(ids, decoding) for ids in texts]
    except GenerationError as error:
        raise ApiError(400, "context_length_exceeded", str(error), param="prompt") from error
    top, numbers = asked.logprobs or 0, range(asked.answers)
    prompts = [replace(prompt, top_logprobs=top, response_format=asked.output_format) for prompt in prompts]
    samples = [replace(prompt, occurrence=number) for prompt in prompts for number in numbers]
    is_scored = bool(asked.echo) and asked.logprobs is not None
    return Work(samples, texts if is_scored else (), top)


def _token_ids(loaded: LoadedCheckpoint, prompt: PromptText) -> tuple[int, ...]:
    """The prompt as tokens, of which there is at least one. Raises ApiError or GenerationError."""
    codec = loaded.generator.codec
    ids = codec.text_ids(prompt) if isinstance(prompt, str) else prompt
    if not ids:
        raise ApiError(
            400, "invalid_request", "prompt: it is empty, and this model has no token to begin with.", param="prompt"
        )
    codec.require_known(ids)
    if len(ids) > codec.context:
        raise GenerationError(f"{len(ids)} tokens are more than the context of {codec.context}.")
    return ids


def _echoes(asked: CompletionRequest, loaded: LoadedCheckpoint, scores: Sequence[TokenScores]) -> list[Echo]:
    if not asked.echo:
        return []
    known: list[TokenScores | None] = list(scores) or [None] * len(asked.prompts)
    echoes = []
    for prompt, score in zip(asked.prompts, known, strict=True):
        ids = _token_ids(loaded, prompt)
        text = prompt if isinstance(prompt, str) else loaded.generator.text.whole(ids, Decoding())
        echoes.append(Echo(text, ids, score))
    return echoes


def _unasked(asked: CompletionRequest, loaded: LoadedCheckpoint) -> list[Generation]:
    """The empty answers to a request for no tokens."""
    lengths = [len(_token_ids(loaded, prompt)) for prompt in asked.prompts for _ in range(asked.answers)]
    return [
        Generation(
            text="",
            token_ids=(),
            token_logprobs=(),
            finish_reason="length",
            prompt_tokens=length,
            latency_s=0.0,
            weights=loaded.weights,
        )
        for length in lengths
    ]
