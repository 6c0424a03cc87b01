from __future__ import annotations

from typing import Any

import pytest
from ratchet.errors import GenerationError, TransientError
from ratchet.inference.embeddings import BATCH, Embedder
from ratchet.settings.inference import InferenceSettings
from ratchet.testing.embeddings_server import embeddings_server, letters

ASKING = InferenceSettings(attempts=2, backoff_s=0.001)


def test_texts_are_embedded_in_order_a_batch_at_a_time() -> None:
    texts = [f"text {number}" for number in range(BATCH + 3)]
    with embeddings_server() as server, Embedder(server.url, "small", ASKING) as embedder:
        assert embedder.embed(texts) == [letters(text) for text in texts]
    assert [len(body["input"]) for body in server.asked] == [BATCH, 3]
    assert {(body["model"], body["path"]) for body in server.asked} == {("small", "/v1/embeddings")}


def test_a_server_that_is_busy_is_asked_again_and_one_that_stays_so_is_the_surroundings() -> None:
    with embeddings_server() as server, Embedder(server.url, "small", ASKING) as embedder:
        server.answers = [(503, {})]
        assert embedder.embed(["a"]) == [letters("a")]
        server.answers = [(503, {}), (429, {})]
        with pytest.raises(TransientError, match="after 2 attempts: status 429"):
            embedder.embed(["a"])


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, {"error": "no such model"}, "no such model"),
        (200, {"error": "no such model"}, "gives no embeddings"),
        (200, {"data": [{"index": 0, "embedding": [1.0]}]}, "1 vectors for 2 texts"),
        (200, {"data": [{"index": i, "embedding": [1.0] * (i + 1)} for i in range(2)]}, "different lengths"),
    ],
)
def test_an_answer_that_is_not_one_vector_a_text_is_an_error(status: int, body: Any, says: str) -> None:
    with embeddings_server() as server, Embedder(server.url, "small", ASKING) as embedder:
        server.answers = [(status, body)]
        with pytest.raises(GenerationError, match=says):
            embedder.embed(["a", "b"])
