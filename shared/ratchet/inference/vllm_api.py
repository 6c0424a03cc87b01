"""The part of vLLM's HTTP API that Ratchet uses, as of vLLM 0.32: completions of token ids, and scores.

It knows one server's address. Chat templates, checkpoints and processes are in vllm_engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ratchet.errors import GenerationError, TransientError
from ratchet.inference.generator import TokenScores, TopTokens
from ratchet.inference.sampling import Prompt
from ratchet.lines import stream_lines
from ratchet.proxies import DIRECT

CONNECT_TIMEOUT_S = 5.0
STATE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Delta:
    """The new tokens of an answer. ``finish_reason`` is vLLM's; None while the answer continues.

    ``top`` has the likeliest tokens at each of them, if the prompt asks for these.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str | None
    top: tuple[TopTokens, ...] = ()


class VllmApi:
    """One vLLM server. Safe to use from several threads.

    Raises TransientError while it is unreachable or overloaded, or if another program answers at its address, and
    GenerationError for a response that is not a completion.
    """

    def __init__(self, url: str, timeout_s: float, connections: int = 128):
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            mounts=DIRECT,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            verify=url.startswith("https:"),
        )

    def close(self) -> None:
        self._http.close()

    def is_healthy(self) -> bool:
        try:
            return self._request("GET", "/health", timeout=STATE_TIMEOUT_S).status_code == 200
        except (TransientError, GenerationError):
            return False

    def version(self) -> str:
        return str(self._state("/version", "version"))

    def complete(self, model: str, prompt: Prompt, end_ids: Sequence[int]) -> Delta:
        """The whole answer."""
        body = self._request("POST", "/v1/completions", json=_body(model, prompt, end_ids, stream=False))
        return _delta(_choice(_parsed(body.content)), prompt.top_logprobs)

    def stream(self, model: str, prompt: Prompt, end_ids: Sequence[int]) -> Iterator[Delta]:
        """The answer in parts, as it is decoded. vLLM aborts the request when the iterator is closed."""
        body = _body(model, prompt, end_ids, stream=True)
        try:
            with self._open().stream("POST", "/v1/completions", json=body) as response:
                if not response.is_success or _is_page(response):
                    response.read()
                self._require(response)
                for line in stream_lines(response.iter_bytes()):
                    if line.startswith(b"data:") and not line.endswith(b"[DONE]"):
                        yield _delta(_choice(_parsed(line.removeprefix(b"data:"))), prompt.top_logprobs)
        except httpx.RequestError as error:
            raise self._unreachable(error) from error

    def score(self, model: str, prompt: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """Natural-log probabilities of the answer's tokens after the prompt."""
        return self._scores(model, [*prompt, *answer], len(prompt), 0)[0]

    def score_text(self, model: str, text: Sequence[int], top: int) -> TokenScores:
        """Each token of a text scored after those before it, and the ``top`` likeliest tokens at each position."""
        logprobs, likeliest = self._scores(model, text, 1, top)
        return TokenScores((None, *logprobs), ((), *likeliest))

    def _scores(
        self, model: str, text: Sequence[int], start: int, top: int
    ) -> tuple[tuple[float, ...], tuple[TopTokens, ...]]:
        """Log-probabilities of the tokens from ``start`` on, from vLLM's of the prompt, and the likeliest tokens."""
        body = {
            "model": model,
            "prompt": list(text),
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": top,
            "add_special_tokens": False,
        }
        choice = _choice(_parsed(self._request("POST", "/v1/completions", json=body).content))
        try:
            places = list(zip(choice["prompt_logprobs"][start:], text[start:], strict=True))
            logprobs = tuple(float(place[str(token)]["logprob"]) for place, token in places)
            return logprobs, tuple(_likeliest(_by_id(place), top) for place, _ in places)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GenerationError(f"{self.url} returned no log-probabilities of the prompt: {error!r}") from error

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._open().request(method, path, **options)
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        self._require(response)
        return response

    def _open(self) -> httpx.Client:
        if self._http.is_closed:
            raise TransientError(f"vLLM at {self.url} is closed")
        return self._http

    def _state(self, path: str, key: str) -> Any:
        """One field of a status route's response."""
        response = self._request("GET", path, timeout=STATE_TIMEOUT_S)
        try:
            return response.json()[key]
        except (ValueError, KeyError, TypeError) as error:
            raise self._unexpected(path, response.text) from error

    def _unreachable(self, error: httpx.RequestError) -> TransientError:
        return TransientError(f"vLLM at {self.url}: {str(error) or type(error).__name__}")

    def _unexpected(self, path: str, text: str) -> TransientError:
        return TransientError(f"vLLM at {self.url}: {path}: unexpected answer: {text[:200]!r}")

    def _require(self, response: httpx.Response) -> None:
        """Raise for an error status, or for a web page: another server at this address may answer 200 with one."""
        path = response.request.url.path
        if not response.is_success:
            problem = f"vLLM at {self.url}: {path}: {response.status_code}: {response.text[:500]}"
            raise (TransientError if response.status_code in (429, 502, 503, 504) else GenerationError)(problem)
        if _is_page(response):
            raise self._unexpected(path, response.text)


def _is_page(response: httpx.Response) -> bool:
    return "html" in response.headers.get("content-type", "")


def _body(model: str, prompt: Prompt, end_ids: Sequence[int], *, stream: bool) -> dict[str, Any]:
    decoding = prompt.decoding
    constraint = {} if prompt.response_format is None else {"response_format": json.loads(prompt.response_format)}
    return {
        **constraint,
        "model": model,
        "prompt": list(prompt.token_ids),
        "max_tokens": prompt.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed + prompt.occurrence,
        "stop": list(decoding.stop),
        "stop_token_ids": sorted(end_ids),
        "logprobs": prompt.top_logprobs,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "add_special_tokens": False,
        "stream": stream,
    }


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise GenerationError(f"vLLM's answer is not JSON: {text[:200]!r}") from error
    if not isinstance(body, dict) or body.get("error"):
        raise GenerationError(f"vLLM failed: {str(body)[:500]}")
    return body


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    try:
        choice: dict[str, Any] = body["choices"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise GenerationError(f"vLLM's answer holds no completion: {str(body)[:300]}") from error
    return choice


def _by_id(place: dict[str, Any]) -> dict[int, float]:
    """The tokens at one place of a prompt."""
    return {int(token): float(found["logprob"]) for token, found in place.items()}


def _likeliest(tokens: dict[int, float], count: int) -> TopTokens:
    return tuple(sorted(tokens.items(), key=lambda token: -token[1])[:count])


def _delta(choice: dict[str, Any], top: int) -> Delta:
    try:
        token_ids = tuple(int(token) for token in choice["token_ids"] or ())
        told = choice["logprobs"] or {}
        logprobs = tuple(float(value) for value in told.get("token_logprobs") or ())
        named = [
            {int(name.removeprefix("token_id:")): float(value) for name, value in place.items()}
            for place in (told.get("top_logprobs") or () if top else ())
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GenerationError(f"vLLM's answer holds no tokens or log-probabilities: {str(choice)[:300]}") from error
    if len(token_ids) != len(logprobs):
        raise GenerationError(f"vLLM's answer holds {len(token_ids)} tokens and {len(logprobs)} log-probabilities.")
    return Delta(token_ids, logprobs, choice.get("finish_reason"), tuple(_likeliest(place, top) for place in named))
