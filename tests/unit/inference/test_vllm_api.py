"""Responses that are not vLLM's, such as those of a proxy in front of it while it restarts, are transient errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from ratchet.errors import TransientError
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt
from ratchet.inference.vllm_api import VllmApi

PAGE = httpx.Response(200, html="<h1>Back soon</h1>")
PROMPT = Prompt(token_ids=(1,), max_new_tokens=4, decoding=Decoding(), occurrence=0)
JSON = {"content-type": "application/json"}


def answering(response: httpx.Response) -> VllmApi:
    """A client of a server that answers everything so."""
    api = VllmApi("http://vllm", 1.0)
    sent: dict[str, Any] = {"content": response.content, "headers": response.headers}
    transport = httpx.MockTransport(lambda _request: httpx.Response(response.status_code, **sent))
    api._http = httpx.Client(base_url="http://vllm", transport=transport)
    return api


@pytest.mark.parametrize(
    "response",
    [
        PAGE,
        httpx.Response(200, text="ok"),
        httpx.Response(200, content=b'{"version": "0.3', headers=JSON),
        httpx.Response(200, json={}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=None),
    ],
    ids=["page", "text", "truncated", "no key", "list", "null"],
)
def test_a_malformed_version_is_a_transient_error(response: httpx.Response) -> None:
    with pytest.raises(TransientError, match="vLLM at http://vllm"):
        answering(response).version()


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.complete("m", PROMPT, []),
        lambda api: list(api.stream("m", PROMPT, [])),
        lambda api: api.score("m", [1], [2]),
    ],
    ids=["complete", "stream", "score"],
)
def test_a_web_page_in_place_of_a_completion_is_a_transient_error(ask: Callable[[VllmApi], object]) -> None:
    with pytest.raises(TransientError, match="Back soon"):
        ask(answering(PAGE))


def test_a_page_is_not_healthy() -> None:
    assert not answering(PAGE).is_healthy()
    assert answering(httpx.Response(200)).is_healthy()
