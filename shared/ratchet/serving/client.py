"""ServingClient: the InferenceServer protocol over HTTP, for both engines. It imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, SecretStr, ValidationError

from ratchet.errors import ServingError, SettingsError, TransientError, UnusableCheckpoint
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.proxies import DIRECT
from ratchet.serving import protocol
from ratchet.serving.protocol import Health, Live, Traffic
from ratchet.serving.server_home import announced_url, client_token
from ratchet.settings.serving import ServingSettings

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT_S = 5.0
STATE_TIMEOUT_S = 10.0
"""A server that does not report its state within this time counts as unreachable."""

ADMIN_TIMEOUT_S = 300.0
"""A canary waits for its answers, and an unload for those of clients."""

LOAD_TIMEOUT_S = 1_200.0
"""Loading reads a large model from a slow disk, and vLLM compiles kernels for it."""

Answer = TypeVar("Answer", bound=BaseModel)


class ServingClient(AbstractContextManager["ServingClient"]):
    """An InferenceServer. Safe to use from several threads. A token that the server refuses is a SettingsError."""

    def __init__(self, base_url: str, admin_token: SecretStr, timeout_s: float | None = None):
        """``timeout_s`` is that of each call; by default ADMIN_TIMEOUT_S, and of a load LOAD_TIMEOUT_S."""
        import httpx  # imports rich and pygments too: 0.1 s that commands which only list the systems can do without

        self._base_url = base_url
        self._load_timeout_s = timeout_s or LOAD_TIMEOUT_S
        self._http = httpx.Client(
            base_url=base_url,
            mounts=DIRECT,
            headers={"authorization": f"Bearer {admin_token.get_secret_value()}"},
            timeout=httpx.Timeout(timeout_s or ADMIN_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            verify=base_url.startswith("https:"),  # reading the certificates takes 80 ms
        )

    @classmethod
    def from_settings(cls, settings: ServingSettings, home: Path, timeout_s: float | None = None) -> ServingClient:
        """A client for the configured server, or for the one last started in ``home``."""
        url = settings.url or announced_url(home) or settings.base_url
        return cls(url, client_token(settings, home), timeout_s)

    def close(self) -> None:
        self._http.close()

    def __exit__(self, *_error: object) -> None:
        self.close()

    def load(self, checkpoint_id: str, path: str, weights: str) -> None:
        body = protocol.LoadRequest(checkpoint_id=checkpoint_id, path=path, weights=weights)
        self._post("load", body, timeout=self._load_timeout_s)

    def unload(self, checkpoint_id: str) -> None:
        self._post("unload", protocol.UnloadRequest(checkpoint_id=checkpoint_id))

    def switch(self, checkpoint_id: str, fencing_token: int, certainty: Certainty | None = None) -> None:
        body = protocol.SwitchRequest(checkpoint_id=checkpoint_id, fencing_token=fencing_token, certainty=certainty)
        self._post("switch", body)

    def score(self, checkpoint_id: str, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        body = protocol.ScoreRequest(checkpoint_id=checkpoint_id, chats=tuple(chats), answers=tuple(answers))
        return list(_read(protocol.ScoreResponse, self._post("score", body)).logprobs)

    def generate(self, checkpoint_id: str, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        body = protocol.GenerateRequest(checkpoint_id=checkpoint_id, chats=tuple(chats), decoding=decoding)
        return list(_read(protocol.GenerateResponse, self._post("generate", body)).generations)

    def ping(self) -> None:
        """Raise SettingsError unless the server accepts the token."""
        self._request("GET", "/admin/ping", timeout=STATE_TIMEOUT_S)

    def live(self) -> Live | None:
        return self.health().live

    def health(self) -> Health:
        return _read(Health, self._request("GET", "/health", timeout=STATE_TIMEOUT_S))

    def stats(self, checkpoint_id: str) -> Traffic:
        return _read(Traffic, self._request("GET", f"/admin/stats/{quote(checkpoint_id)}", timeout=STATE_TIMEOUT_S))

    def _post(self, name: str, body: BaseModel, **options: Any) -> httpx.Response:
        return self._request("POST", f"/admin/{name}", content=body.model_dump_json(), **options)

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        import httpx

        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise TransientError(f"inference server at {self._base_url}: {error or type(error)}") from error
        if response.is_success:
            return response
        if response.status_code in (502, 503, 504):
            raise TransientError(f"inference server at {self._base_url}: {_error(response, 'message')}")
        problem = f"{method} {path}: {response.status_code}: {_error(response, 'message')}"
        if response.status_code in (401, 403):
            raise SettingsError(
                f"the inference server at {self._base_url} refuses the token ({problem}). Put the same token into "
                "serving.admin_token_file on both sides; a server without that setting creates its own, in the file "
                "admin-token of its home."
            )
        is_broken = _error(response, "code") == protocol.BROKEN_CHECKPOINT
        raise UnusableCheckpoint(problem) if is_broken else ServingError(problem)


def _read(model: type[Answer], response: httpx.Response) -> Answer:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise ServingError(f"{response.request.url}: not an answer of Ratchet's server: {error}") from error


def _error(response: httpx.Response, field: str) -> str:
    """A field of the error in a response; if there is none, the beginning of its text."""
    try:
        return str(response.json()["error"][field])
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
