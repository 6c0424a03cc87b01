"""What is not vLLM's answer, as of a proxy in front of it while it restarts, is trouble of the surroundings."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.errors import TransientError
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt
from ratchet.serving.vllm.api import VllmApi
from ratchet.serving.vllm.folder import ServedFolder
from ratchet.serving.vllm.seats import StandingSeat, StandingSeats

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


@pytest.mark.parametrize("ask", [VllmApi.version, VllmApi.models, VllmApi.weight_version])
@pytest.mark.parametrize(
    "response",
    [
        PAGE,
        httpx.Response(200, text="ok"),
        httpx.Response(200, content=b'{"version": "0.3', headers=JSON),
        httpx.Response(200, json={}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=None),
        httpx.Response(200, json={"data": [None]}),
        httpx.Response(200, json={"data": None}),
    ],
    ids=["page", "text", "truncated", "no key", "list", "null", "null entry", "null list"],
)
def test_what_does_not_tell_the_state_is_no_answer(ask: Callable[[VllmApi], object], response: httpx.Response) -> None:
    with pytest.raises(TransientError, match="vLLM at http://vllm"):
        ask(answering(response))


@pytest.mark.parametrize(
    "ask",
    [
        lambda api: api.reload("/folder", "w"),
        lambda api: api.complete("m", PROMPT, []),
        lambda api: list(api.stream("m", PROMPT, [])),
        lambda api: api.score("m", [1], [2]),
    ],
    ids=["reload", "complete", "stream", "score"],
)
def test_a_page_in_place_of_what_was_asked_for_is_no_answer(ask: Callable[[VllmApi], object]) -> None:
    with pytest.raises(TransientError, match="Back soon"):
        ask(answering(PAGE))


def test_a_page_is_not_healthy() -> None:
    assert not answering(PAGE).is_healthy()
    assert answering(httpx.Response(200)).is_healthy()


def test_a_seat_that_was_left_is_left_once_and_its_server_is_free_for_others(tmp_path: Path) -> None:
    """It is left whenever vLLM is found away, until another is found in its place."""
    api = answering(PAGE)
    seats = StandingSeats([api])
    lock = seats._locks[0]
    assert lock.acquire(blocking=False)
    seat = StandingSeat(api, "m", "w", lock)
    for _ in range(2):
        assert not seat.is_taken()
        seat.leave()
        with pytest.raises(TransientError, match="healthy and free"):
            seats.take(ServedFolder(tmp_path, "w", None))
    assert lock.acquire(blocking=False)
    seat.leave()
    assert lock.locked(), "another's by now"
    back = StandingSeat(answering(httpx.Response(200, json={"weight_version": "w"})), "m", "w", threading.Lock())
    assert back.is_taken()
    back.free.acquire()
    back.leave()
    assert not back.is_taken()
