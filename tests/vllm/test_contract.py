"""What the contract of InferenceServer promises, with a real vLLM, for whole weights and for adapters."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import httpx
import pytest
from ratchet.data.example import Message
from ratchet.errors import ServingError
from ratchet.inference.generator import Chat, Decoding
from ratchet.inference.local_generator import LocalGenerator

from tests.support.live_clients import Clients
from tests.support.server_processes import START_S, Checkpoint, Server

CHATS: list[Chat] = [(Message(role="user", content=f"{number}+{number}="),) for number in range(12)]
DECODING = Decoding(max_new_tokens=16)
TOKENS = itertools.count(1)
"""Fencing tokens, each higher than the last."""

EPSILON = 1e-3
"""Largest difference of a log-probability, in fp32, from our own model."""


@pytest.mark.parametrize("kind", ["whole", "adapted"])
def test_it_answers_and_scores_as_the_judged_model(server: Server, kind: str, request: pytest.FixtureRequest) -> None:
    served: Checkpoint = request.getfixturevalue(kind)
    here = LocalGenerator.load(served.path)
    expected = here.generate(CHATS, DECODING)
    answers = server.client.generate(served.id, CHATS, DECODING)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert {answer.weights for answer in answers} == {served.weights}
    for answer, judged in zip(answers, expected, strict=True):
        assert answer.token_logprobs == pytest.approx(judged.token_logprobs, abs=EPSILON)
    scores = server.client.score(served.id, CHATS, [answer.token_ids for answer in answers])
    for score, answer in zip(scores, answers, strict=True):
        assert score == pytest.approx(answer.token_logprobs, abs=EPSILON)
    texts = server.client.score(served.id, CHATS[:1], ["12"])
    assert texts[0] == pytest.approx(here.score(CHATS[:1], ["12"])[0], abs=EPSILON)


def test_the_adapters_change_the_answers(server: Server, whole: Checkpoint, adapted: Checkpoint) -> None:
    told = [server.client.generate(each.id, CHATS, DECODING) for each in (whole, adapted)]
    assert [answer.token_ids for answer in told[0]] != [answer.token_ids for answer in told[1]]


def test_health_names_the_engine(server: Server) -> None:
    conditions = server.client.health().conditions
    assert conditions is not None
    assert conditions.engine.startswith("vllm-0.")
    assert conditions.dtype == "fp32"


def test_clients_get_streams_likeliest_tokens_and_answers_in_a_format(server: Server, whole: Checkpoint) -> None:
    asked = {
        "model": whole.id,
        "messages": [{"role": "user", "content": "1+1="}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 3,
    }
    url = f"{server.url}/v1/chat/completions"
    answer = httpx.post(url, json=asked, timeout=START_S).json()["choices"][0]
    for token in answer["logprobs"]["content"]:
        assert token["top_logprobs"][0]["logprob"] == pytest.approx(token["logprob"], abs=EPSILON)
        assert len(token["top_logprobs"]) == 3
    with httpx.stream("POST", url, json={**asked, "stream": True}, timeout=START_S) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    parts = [json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines[:-1]]
    assert "".join(parts) == answer["message"]["content"]
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": {"type": "integer"}}}
    held = httpx.post(url, json={**asked, "response_format": wanted}, timeout=START_S)
    assert held.status_code == 200, held.text
    assert held.json()["choices"][0]["message"]["content"].strip().lstrip("-").isdigit()


def test_sixteen_clients_see_every_switch_and_no_error(server: Server, whole: Checkpoint, adapted: Checkpoint) -> None:
    server.client.switch(whole.id, next(TOKENS))
    with Clients(server.url, 16) as clients:
        clients.wait_for(16)
        for new in (adapted, whole) * 3:
            server.client.switch(new.id, next(TOKENS))
            clients.wait_for(32)
    assert clients.faults == []
    digests = {each.id: each.weights for each in (whole, adapted)}
    answered = Counter(body["ratchet"]["checkpoint"] for body in clients.bodies)
    assert set(answered) == set(digests)
    assert all(digests[body["ratchet"]["checkpoint"]] == body["ratchet"]["weights"] for body in clients.bodies)


def test_a_checkpoint_that_must_not_be_served_is_refused_and_nothing_is_started(
    server: Server, whole: Checkpoint, adapted: Checkpoint
) -> None:
    with pytest.raises(ServingError, match="not the expected"):
        server.client.load("other", str(whole.path), adapted.weights)
    assert set(server.client.health().loaded) == {whole.id, adapted.id}
