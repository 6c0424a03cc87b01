"""HttpGenerator: answers from a server with the OpenAI chat API, retried while it is unreachable or overloaded.

It imports no torch. The API cannot score given answers, and returns no token ids.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from ratchet.backoff import Backoff
from ratchet.errors import GenerationError, ReasoningOnly, TransientError
from ratchet.inference.generator import Chat, Decoding, Generation, Progress, Reply, finite
from ratchet.proxies import mounts_for
from ratchet.settings.serving import InferenceSettings

CONNECT_TIMEOUT_S = 10.0
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
MAX_ATTEMPTS = 5
"""Attempts per request. With the pauses between them, a request fails after 4 to 8 s."""

MOST_REASONED = 8
"""Answers in a row that may be reasoning only, of a server that has written a text before."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

_ERROR_TEXT = re.compile(r"\s*\[?(?:internal server )?(?:error|exception|traceback)\b\s*[]:(]", re.IGNORECASE)
"""Some servers return their own failures as the text of an answer. Log-probabilities prove that a model wrote it."""


DROPPABLE = ("seed", "logprobs", "top_p", "max_tokens", "max_completion_tokens")
"""Fields that some servers refuse and an answer can do without. The request is sent again without the one that a
refusal names; in place of ``max_tokens`` ``max_completion_tokens`` is tried first, as OpenAI's newer models want it.
``top_p`` is left out only where it is 1, which cuts nothing off."""

_REFUSED = frozenset({400, 422})
_UNKNOWN = re.compile(
    r"support|unknown|unrecogni[sz]ed|unexpected|extra|not (permitted|allowed)|max_completion_tokens", re.IGNORECASE
)
"""Says that a field is refused whatever its value. A limit that is only too high is never left out: answers would have
no limit, and would be paid for."""


class HttpGenerator(AbstractContextManager["HttpGenerator"]):
    """A Generator over ``{base_url}/v1/chat/completions``.

    A response without an answer (an error body, whatever its status; no choice; no text; another finish reason) is a
    GenerationError. A server that stays unreachable or overloaded through all attempts is a TransientError. The API
    returns no token ids; ``token_logprobs`` are empty if the server gives none. Fields that the server refuses
    (``DROPPABLE``) are left out from then on.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        settings: InferenceSettings | None = None,
        *,
        max_attempts: int = MAX_ATTEMPTS,
        first_pause_s: float = FIRST_PAUSE_S,
    ):
        self._max_attempts, self._first_pause_s = max_attempts, first_pause_s
        self._settings = settings or InferenceSettings()
        self._model = model
        key = self._settings.api_key
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._http = httpx.Client(
            headers={"authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=httpx.Timeout(self._settings.timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=self._settings.concurrency),
            mounts=mounts_for(self._url),
        )
        self._refused: dict[str, str | None] = {}  # a field, and what is sent in its place
        self._weights = f"remote:{model}"
        self._reasoned = MOST_REASONED  # so that a server that never writes a text is noticed at once

    def close(self) -> None:
        self._http.close()

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def weights(self) -> str:
        """The weights of the last answer: a digest from Ratchet's server, otherwise the server's fingerprint."""
        return self._weights

    def generate(
        self,
        chats: Sequence[Chat],
        decoding: Decoding,
        progress: Progress | None = None,
        arrived: Callable[[Generation], object] | None = None,
    ) -> list[Generation]:
        """One answer per chat; the first failure cancels the others.

        ``arrived`` is called with every answer received, even if another failed, since each of them was paid for.
        Raises ReasoningOnly where all answers are, and all before them or the last ``MOST_REASONED``, so that a caller
        stops paying for more of them.
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
        if any(not answer.reasoning_only for answer in answers.values()):
            self._reasoned = 0
        elif (reasoned := self._reasoned + len(answers)) < MOST_REASONED:
            self._reasoned = reasoned
        elif answers:
            raise ReasoningOnly(
                f"{self._url}: status 200, but every answer was reasoning only, without a text: raise max_tokens "
                f"above {decoding.max_new_tokens}, or switch reasoning off at the server."
            )
        return [answers[index] for index in range(len(chats))]

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:  # noqa: ARG002
        """Always raises GenerationError, since the chat API cannot score given answers."""
        raise GenerationError("the OpenAI chat API cannot score given answers; score with a local generator.")

    def _answer(self, chat: Chat, decoding: Decoding) -> Generation:
        started = time.perf_counter()
        response = self._post(self._body(chat, decoding))
        completion = read_completion(response, self._url)
        self._weights = completion.weights or self._weights
        return Generation(
            text=completion.text,
            reasoning_only=completion.reasoning_only,
            token_ids=(),
            token_logprobs=completion.logprobs,
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            answer_tokens=completion.answer_tokens,
            latency_s=time.perf_counter() - started,
            weights=completion.weights or f"remote:{self._model}",
        )

    def _post(self, body: dict[str, object]) -> httpx.Response:
        """The response, to a request without the fields that the server has refused."""
        while True:
            sent = self._accepted(body)
            response = post_with_retries(
                self._http, self._url, sent, max_attempts=self._max_attempts, first_pause_s=self._first_pause_s
            )
            field = refused_field(response, sent)
            if field is None:
                return response
            self._refused[field] = "max_completion_tokens" if field == "max_tokens" else None

    def _accepted(self, body: dict[str, object]) -> dict[str, object]:
        sent = {}
        for field, value in body.items():
            name: str | None = field
            while name in self._refused:
                name = self._refused[name]
            if name is not None:
                sent[name] = value
        return sent

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


def post_with_retries(
    http: httpx.Client, url: str, body: Mapping[str, object], *, max_attempts: int, first_pause_s: float
) -> httpx.Response:
    """The first response that is not a transient error. Raises TransientError after ``max_attempts``."""
    backoff = Backoff(first_pause_s, LONGEST_PAUSE_S, jitter=0.5)
    while True:
        try:
            response = http.post(url, json=body)
        except httpx.TransportError as error:
            problem = f"{type(error).__name__} {error}".strip()
            retry_after = None
        else:
            if response.status_code not in TRANSIENT:
                return response
            problem = f"status {response.status_code}: {response.text[:200]}"
            retry_after = response.headers.get("retry-after")
        if backoff.failures + 1 >= max_attempts:
            raise TransientError(f"{url}, after {max_attempts} attempts: {problem}")
        backoff.wait(at_least_s=_seconds(retry_after))


def _seconds(retry_after: str | None) -> float:
    """A Retry-After header in seconds, at most the longest pause. A date counts as absent."""
    try:
        return min(max(float(retry_after or 0), 0.0), LONGEST_PAUSE_S)
    except ValueError:
        return 0.0


def refused_field(response: httpx.Response, sent: Mapping[str, object]) -> str | None:
    """The field of the request that a refusal names, if it is one that can be left out."""
    if response.status_code not in _REFUSED:
        return None
    try:
        body = response.json()
    except ValueError:
        body = response.text
    said = str(body)
    named = [field for field in DROPPABLE if field in sent and re.search(rf"\b{field}\b", said)]
    if sent.get("top_p") != 1.0:
        named = [field for field in named if field != "top_p"]
    return next((field for field in named if not field.startswith("max_") or _UNKNOWN.search(said)), None)


@dataclass(frozen=True)
class ChatCompletion:
    """``weights`` is None if the server does not identify the weights."""

    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: tuple[float, ...]
    prompt_tokens: int
    answer_tokens: int
    weights: str | None
    reasoning_only: bool = False


def read_completion(response: httpx.Response, url: str) -> ChatCompletion:
    """Parse a response. Raises GenerationError, quoting the body, for anything but one whole answer."""
    try:
        body = response.json()
    except ValueError:
        raise GenerationError(f"{url}: status {response.status_code}, not JSON: {response.text[:300]!r}") from None
    if response.status_code != 200 or not isinstance(body, dict) or body.get("error"):
        raise GenerationError(f"{url}: status {response.status_code}: {_message(body)}")
    try:
        choice = body["choices"][0]
        message, finish_reason = choice["message"], choice["finish_reason"]
        text, reasoning = message["content"], message.get("reasoning_content") or message.get("reasoning")
        logprobs = tuple(finite(token["logprob"]) for token in (choice.get("logprobs") or {}).get("content") or ())
        usage = body.get("usage") or {}
        prompt_tokens, answer_tokens = (int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise GenerationError(f"{url}: no chat completion ({error!r}): {str(body)[:300]}") from error
    reasoning_only = not text and isinstance(reasoning, str) and bool(reasoning.strip())
    text = "" if reasoning_only else text
    if not isinstance(text, str):
        raise GenerationError(f"{url}: an answer without text: {str(choice)[:300]}")
    if finish_reason not in ("stop", "length"):
        raise GenerationError(f"{url}: the answer ended with finish_reason {finish_reason!r}: {text[:200]!r}")
    if _ERROR_TEXT.match(text) and not logprobs:
        raise GenerationError(f"{url}: an error in place of an answer: {text[:300]!r}")
    weights = _weights(body)
    return ChatCompletion(text, finish_reason, logprobs, prompt_tokens, answer_tokens, weights, reasoning_only)


def _weights(body: dict[str, Any]) -> str | None:
    ratchet = body.get("ratchet")
    found = ratchet.get("weights") if isinstance(ratchet, dict) else None
    return found or body.get("system_fingerprint") or None


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message", error) if isinstance(error, dict) else error or body)[:500]
