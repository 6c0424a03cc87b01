"""Vectors of texts from a server that speaks the OpenAI embeddings API. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
from pydantic import BaseModel, ValidationError

from ratchet.closing import Closing
from ratchet.errors import GenerationError
from ratchet.inference.patient_post import patient_post
from ratchet.settings.inference import InferenceSettings

BATCH = 64
"""Texts of one request."""


class _Entry(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    data: list[_Entry]


class Embedder(Closing):
    """``{base_url}/v1/embeddings``. An answer that is not one vector a text, all of one length, is a GenerationError; a
    server that stays away or overloaded through all attempts is a TransientError."""

    def __init__(self, base_url: str, model: str, settings: InferenceSettings):
        key = settings.api_key
        self._url = base_url.rstrip("/").removesuffix("/v1") + "/v1/embeddings"
        self._model, self._settings = model, settings
        headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        self._http = httpx.Client(headers=headers, timeout=settings.timeout_s)

    def close(self) -> None:
        self._http.close()

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """One vector a text, in order."""
        vectors: list[list[float]] = []
        for start in range(0, len(texts), BATCH):
            vectors += self._asked(list(texts[start : start + BATCH]))
        if len({len(vector) for vector in vectors}) > 1:
            raise GenerationError(f"{self._url} gives vectors of different lengths.")
        return vectors

    def _asked(self, texts: list[str]) -> list[list[float]]:
        response = patient_post(self._http, self._url, {"model": self._model, "input": texts}, self._settings)
        if response.status_code != httpx.codes.OK:
            raise GenerationError(f"{self._url}: status {response.status_code}: {response.text[:200]}")
        try:
            found = {entry.index: entry.embedding for entry in _Answer.model_validate_json(response.content).data}
        except ValidationError as error:
            raise GenerationError(f"{self._url} gives no embeddings: {error.errors()[0]['msg']}") from error
        if sorted(found) != list(range(len(texts))):
            raise GenerationError(f"{self._url} gives {len(found)} vectors for {len(texts)} texts.")
        return [found[index] for index in range(len(texts))]
