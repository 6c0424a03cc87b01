"""The part of vLLM's HTTP interface that Ratchet uses, against one server (vLLM 0.32; see docs/systems.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ratchet.errors import GenerationError, ServingError, TransientError
from ratchet.inference.sampling import Prompt
from ratchet.lines import stream_lines

CONNECT_TIMEOUT_S = 5.0
STATE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Piece:
    """What an answer has grown by. ``finish_reason`` is vLLM's; None while it goes on."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str | None


class VllmApi:
    """One vLLM server. Safe to use from several threads.

    Raises TransientError where it is away or overloaded, or where something else answers in its place, ServingError
    where it refuses a change, and GenerationError for what is not an answer.
    """

    def __init__(self, url: str, timeout_s: float, connections: int = 128):
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            verify=url.startswith("https:"),
        )

    def close(self) -> None:
        self._http.close()

    def is_healthy(self) -> bool:
        try:
            return self._asked("GET", "/health", timeout=STATE_TIMEOUT_S).status_code == 200
        except (TransientError, ServingError):
            return False

    def version(self) -> str:
        return str(self._told("/version", "version"))

    def models(self) -> dict[str, str | None]:
        """The names that it serves; an adapter's with the name of its base."""
        found = self._told("/v1/models", "data")
        try:
            return {str(model["id"]): model.get("parent") for model in found}
        except (AttributeError, KeyError, TypeError) as error:
            raise self._strange("/v1/models", str(found)) from error

    def weight_version(self) -> str:
        """What the last ``reload`` named the weights; ``default`` before the first."""
        return str(self._told("/weight_info", "weight_version"))

    def reload(self, folder: str, version: str) -> None:
        """Take other weights of the same architecture in place. Its requests are answered first, new ones wait."""
        self._asked("POST", "/pause", params={"mode": "wait"})
        try:
            # The version goes first: should the reload break off, the old name must not stand over other weights.
            self._asked("POST", "/update_weight_version", json={"new_version": f"loading {version}"})
            self._asked(
                "POST", "/collective_rpc", json={"method": "reload_weights", "kwargs": {"weights_path": folder}}
            )
            self._asked("POST", "/reset_prefix_cache")
            self._asked("POST", "/update_weight_version", json={"new_version": version})
        finally:
            self._asked("POST", "/resume")

    def load_adapter(self, name: str, folder: str) -> None:
        """Nothing happens where an adapter of that name is loaded."""
        if name not in self.models():
            self._asked("POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": folder})

    def unload_adapter(self, name: str) -> None:
        if name in self.models():
            self._asked("POST", "/v1/unload_lora_adapter", json={"lora_name": name})

    def complete(self, model: str, prompt: Prompt, end_ids: Sequence[int]) -> Piece:
        """The whole answer."""
        body = self._asked("POST", "/v1/completions", json=_body(model, prompt, end_ids, stream=False))
        return _piece(_choice(_parsed(body.content)))

    def stream(self, model: str, prompt: Prompt, end_ids: Sequence[int]) -> Iterator[Piece]:
        """The answer as it grows. vLLM drops the request when the iterator is closed."""
        body = _body(model, prompt, end_ids, stream=True)
        try:
            with self._open().stream("POST", "/v1/completions", json=body) as response:
                if not response.is_success or _is_page(response):
                    response.read()
                self._require(response, GenerationError)
                for line in stream_lines(response.iter_bytes()):
                    if line.startswith(b"data:") and not line.endswith(b"[DONE]"):
                        yield _piece(_choice(_parsed(line.removeprefix(b"data:"))))
        except httpx.RequestError as error:
            raise self._away(error) from error

    def score(self, model: str, prompt: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """Natural-log probabilities of the answer's tokens after the prompt, from the prompt log-probabilities."""
        body = {
            "model": model,
            "prompt": [*prompt, *answer],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
            "add_special_tokens": False,
        }
        choice = _choice(_parsed(self._asked("POST", "/v1/completions", json=body).content))
        try:
            told = choice["prompt_logprobs"][len(prompt) :]
            return tuple(float(place[str(token)]["logprob"]) for place, token in zip(told, answer, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise GenerationError(f"{self.url} gave no log-probabilities of the prompt: {error!r}") from error

    def _asked(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._open().request(method, path, **options)
        except httpx.RequestError as error:
            raise self._away(error) from error
        self._require(response, GenerationError if path == "/v1/completions" else ServingError)
        return response

    def _open(self) -> httpx.Client:
        if self._http.is_closed:
            raise TransientError(f"vLLM at {self.url} has been left")
        return self._http

    def _told(self, path: str, key: str) -> Any:
        """What vLLM tells of its state under that key."""
        response = self._asked("GET", path, timeout=STATE_TIMEOUT_S)
        try:
            return response.json()[key]
        except (ValueError, KeyError, TypeError) as error:
            raise self._strange(path, response.text) from error

    def _away(self, error: httpx.RequestError) -> TransientError:
        return TransientError(f"vLLM at {self.url}: {str(error) or type(error).__name__}")

    def _strange(self, path: str, said: str) -> TransientError:
        return TransientError(f"vLLM at {self.url}: {path}: this is not its answer: {said[:200]!r}")

    def _require(self, response: httpx.Response, kind: type[GenerationError] | type[ServingError]) -> None:
        """Raise unless vLLM did as it was asked: a proxy may well say 200 and show a page while vLLM is away."""
        path = response.request.url.path
        if not response.is_success:
            said = f"vLLM at {self.url}: {path}: {response.status_code}: {response.text[:500]}"
            raise (TransientError if response.status_code in (429, 502, 503, 504) else kind)(said)
        if _is_page(response):
            raise self._strange(path, response.text)


def _is_page(response: httpx.Response) -> bool:
    return "html" in response.headers.get("content-type", "")


def _body(model: str, prompt: Prompt, end_ids: Sequence[int], *, stream: bool) -> dict[str, Any]:
    decoding = prompt.decoding
    return {
        "model": model,
        "prompt": list(prompt.token_ids),
        "max_tokens": prompt.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed + prompt.occurrence,
        "stop": list(decoding.stop),
        "stop_token_ids": sorted(end_ids),
        "logprobs": 0,
        "return_token_ids": True,
        "add_special_tokens": False,
        "stream": stream,
    }


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise GenerationError(f"vLLM answered what is not JSON: {text[:200]!r}") from error
    if not isinstance(body, dict) or body.get("error"):
        raise GenerationError(f"vLLM failed: {str(body)[:500]}")
    return body


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    try:
        choice: dict[str, Any] = body["choices"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise GenerationError(f"vLLM answered no completion: {str(body)[:300]}") from error
    return choice


def _piece(choice: dict[str, Any]) -> Piece:
    try:
        token_ids = tuple(int(token) for token in choice["token_ids"] or ())
        logprobs = tuple(float(value) for value in (choice["logprobs"] or {}).get("token_logprobs") or ())
    except (KeyError, TypeError, ValueError) as error:
        raise GenerationError(f"vLLM told no tokens or log-probabilities: {str(choice)[:300]}") from error
    if len(token_ids) != len(logprobs):
        raise GenerationError(f"vLLM told {len(token_ids)} tokens and {len(logprobs)} log-probabilities.")
    return Piece(token_ids, logprobs, choice.get("finish_reason"))
