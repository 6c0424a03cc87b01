"""Answers from a server that speaks the OpenAI chat API. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx

from ratchet.closing import Closing
from ratchet.errors import GenerationError
from ratchet.inference.chat_completion import read_completion
from ratchet.inference.generator import Chat, Decoding, Generation, Progress, Reply
from ratchet.inference.patient_post import patient_post
from ratchet.settings.inference import InferenceSettings

CONNECT_TIMEOUT_S = 10.0


class HttpGenerator(Closing):
    """A Generator over ``{base_url}/v1/chat/completions``.

    An answer that is not one (an error body, whatever its status; no choice; no text; another finish reason) is a
    GenerationError. A server that stays away or overloaded through all attempts is a TransientError. The API
    tells no token ids; ``token_logprobs`` are empty where the server gives none.
    """

    def __init__(self, base_url: str, model: str, settings: InferenceSettings | None = None):
        self._settings = settings or InferenceSettings()
        self._model = model
        key = self._settings.api_key
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=httpx.Timeout(self._settings.timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=self._settings.concurrency),
        )
        self._weights = f"remote:{model}"

    def close(self) -> None:
        self._http.close()

    @property
    def weights(self) -> str:
        """What the last answer said of its weights: a digest from Ratchet's server, else the server's fingerprint."""
        return self._weights

    def generate(
        self,
        chats: Sequence[Chat],
        decoding: Decoding,
        progress: Progress | None = None,
        arrived: Callable[[Generation], object] | None = None,
    ) -> list[Generation]:
        """One answer a chat; the first that fails ends the others.

        ``arrived`` is told every answer that came, also where another failed: each of them was paid for.
        """
        answers: dict[int, Generation] = {}
        with ThreadPoolExecutor(self._settings.concurrency, "http-generator") as pool:
            waiting = {pool.submit(self._answer, chat, decoding): index for index, chat in enumerate(chats)}
            try:
                for future in as_completed(waiting):
                    answers[waiting[future]] = future.result()
                    if progress:
                        progress(len(answers), len(chats))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                came = [future for future in waiting if not future.cancelled() and future.exception() is None]
                if arrived:
                    for future in came:
                        arrived(future.result())
        return [answers[index] for index in range(len(chats))]

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:  # noqa: ARG002
        """Always a GenerationError: the chat API scores no given answers."""
        raise GenerationError("the OpenAI chat API cannot score given answers; score with a local generator.")

    def _answer(self, chat: Chat, decoding: Decoding) -> Generation:
        started = time.perf_counter()
        response = patient_post(self._http, self._url, self._body(chat, decoding), self._settings)
        completion = read_completion(response, self._url)
        self._weights = completion.weights or self._weights
        return Generation(
            text=completion.text,
            token_ids=(),
            token_logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            answer_tokens=completion.answer_tokens,
            latency_s=time.perf_counter() - started,
            weights=completion.weights or f"remote:{self._model}",
        )

    def _body(self, chat: Chat, decoding: Decoding) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": [message.model_dump() for message in chat],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed,
            "logprobs": True,
            **({"stop": list(decoding.stop)} if decoding.stop else {}),
        }
