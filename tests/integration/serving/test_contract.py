"""The contract of InferenceServer, for the embedded server and the router in front of vLLM."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.data.example import Message
from ratchet.errors import ServingError, TransientError
from ratchet.inference.generator import Chat, Decoding
from ratchet.inference.http_generator import HttpGenerator
from ratchet.inference.local_generator import LocalGenerator
from ratchet.serving.protocol import InferenceServer, Live

from tests.support.live_clients import Clients
from tests.support.server_processes import START_S, VLLM_COMMAND, Checkpoint, Server, command

pytestmark = pytest.mark.timeout(1_800)

Start = Callable[..., Server]

CHATS: list[Chat] = [(Message(role="user", content=f"{number}+{number}="),) for number in range(12)]
DECODING = Decoding(max_new_tokens=16)


@pytest.fixture(scope="module", params=["embedded", "vllm"])
def engine(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of an engine."""
    if request.param == "embedded":
        return {}
    return {"engine": "vllm", "vllm_command": VLLM_COMMAND}


@pytest.fixture(scope="module")
def server(start: Start, engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Server:
    """One server for all tests that do not end it."""
    return start(tmp_path_factory.mktemp("server") / "home", **engine)


@pytest.fixture(scope="module")
def tokens() -> Iterator[int]:
    """Fencing tokens, each higher than the last."""
    return itertools.count(1)


def test_the_http_client_implements_the_protocol(server: Server) -> None:
    assert isinstance(server.client, InferenceServer)


def test_scoring_an_answer_gives_the_log_probabilities_of_its_generation(
    server: Server, blue: Checkpoint, green: Checkpoint
) -> None:
    told = {}
    for checkpoint in (blue, green):
        server.load(checkpoint)
        answers = server.client.generate(checkpoint.id, CHATS, DECODING)
        assert {answer.weights for answer in answers} == {checkpoint.weights}
        scores = server.client.score(checkpoint.id, CHATS, [answer.token_ids for answer in answers])
        for score, answer in zip(scores, answers, strict=True):
            assert score == pytest.approx(answer.token_logprobs, abs=1e-4)
        told[checkpoint.id] = [answer.token_ids for answer in answers]
    assert told["blue"] != told["green"]
    assert len(server.client.score(blue.id, CHATS[:1], ["12"])[0]) == 3


def test_the_embedded_server_answers_like_the_local_model(
    server: Server, engine: dict[str, str], blue: Checkpoint
) -> None:
    if engine:
        pytest.skip("the stand-in for vLLM computes in its own way")
    here = LocalGenerator.load(blue.path)
    server.load(blue)
    answers = server.client.generate(blue.id, CHATS, DECODING)
    expected = here.generate(CHATS, DECODING)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    texts = server.client.score(blue.id, CHATS[:1], ["12"])
    assert texts[0] == pytest.approx(here.score(CHATS[:1], ["12"])[0], abs=1e-4)


def test_health_shows_the_live_checkpoint_and_how_it_computes(
    server: Server, engine: dict[str, str], tokens: Iterator[int], blue: Checkpoint
) -> None:
    token = next(tokens)
    server.load(blue)
    server.client.switch(blue.id, token)
    health = server.client.health()
    hardware = LocalGenerator.load(blue.path).hardware
    assert health.loaded[blue.id] == blue.weights
    assert server.client.live() == health.live == Live(checkpoint_id="blue", weights=blue.weights, fencing_token=token)
    assert health.conditions is not None
    assert health.conditions.model_dump() == {
        "engine": "vllm-0.32.0" if engine else hardware.engine,
        "dtype": hardware.dtype,
        "gpu_class": hardware.gpu_class,
    }


def post(server: Server, route: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/{route}", json={"model": "blue", **fields}, timeout=START_S)


def test_clients_of_both_engines_get_the_likeliest_tokens_and_the_scores_of_a_text(
    server: Server, blue: Checkpoint
) -> None:
    server.load(blue)
    asked = [{"role": "user", "content": "1+1="}]
    answer = post(server, "chat/completions", messages=asked, max_tokens=5, n=2, logprobs=True, top_logprobs=3).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for token in answer["choices"][0]["logprobs"]["content"]:
        assert token["top_logprobs"][0]["logprob"] == token["logprob"]
        assert len(token["top_logprobs"]) == 3
    echoed = post(server, "completions", prompt=["1+1=2", "3"], echo=True, max_tokens=2, logprobs=1).json()
    for choice, length in zip(echoed["choices"], (5, 1), strict=True):
        told = choice["logprobs"]
        first, *others = told["token_logprobs"]
        assert first is None
        assert len(others) > length - 1
        for logprob, top in zip(others, told["top_logprobs"][1:], strict=True):
            assert logprob <= max(top.values())


def test_only_vllm_holds_answers_to_a_format(server: Server, engine: dict[str, str], blue: Checkpoint) -> None:
    server.load(blue)
    wanted = {"type": "json_schema", "json_schema": {"name": "sum", "schema": {"type": "integer"}}}
    asked = [{"role": "user", "content": "1+1="}]
    response = post(server, "chat/completions", messages=asked, max_tokens=2, response_format=wanted)
    if engine:
        assert response.status_code == 200, response.text
    else:
        assert response.status_code == 400
        assert "serving.engine = vllm" in response.json()["error"]["message"]


def answerer(server: Server) -> str:
    """The checkpoint that answers a client now."""
    asked = {"model": "ratchet", "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
    response = httpx.post(f"{server.url}/v1/chat/completions", json=asked, timeout=START_S)
    return str(response.json()["ratchet"]["checkpoint"])


def test_clients_see_the_old_then_the_new_checkpoint_and_no_error(
    server: Server, tokens: Iterator[int], blue: Checkpoint, green: Checkpoint
) -> None:
    server.load(blue)
    server.client.switch(blue.id, next(tokens))
    with Clients(server.url, 32) as clients:
        clients.wait_for(32)
        for new, old in [(green, blue), (blue, green)] * 3:
            server.load(new)
            clients.wait_for(8)
            server.client.switch(new.id, next(tokens))
            assert answerer(server) == new.id
            server.client.unload(old.id)
            clients.wait_for(32)
    assert clients.faults == []
    digests = {blue.id: blue.weights, green.id: green.weights}
    answered = Counter(body["ratchet"]["checkpoint"] for body in clients.bodies)
    assert set(answered) == set(digests)
    assert all(digests[body["ratchet"]["checkpoint"]] == body["ratchet"]["weights"] for body in clients.bodies)
    by_question = {(body["ratchet"]["checkpoint"], body["usage"]["prompt_tokens"]) for body in clients.bodies}
    assert len(by_question) == 2


def test_an_answer_is_finished_by_the_checkpoint_that_began_it(
    server: Server, tokens: Iterator[int], blue: Checkpoint, green: Checkpoint
) -> None:
    server.load(blue)
    server.load(green)
    server.client.switch(blue.id, next(tokens))
    expected = server.client.generate(blue.id, CHATS[:1], Decoding(max_new_tokens=300))[0].text
    turns = [message.model_dump() for message in CHATS[0]]
    asked = {"model": "ratchet", "messages": turns, "max_tokens": 300, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=asked, timeout=START_S) as response:
        lines = (line.removeprefix("data: ") for line in response.iter_lines() if line)
        events = [json.loads(next(lines))]
        server.client.switch(green.id, next(tokens))
        assert answerer(server) == green.id
        server.client.unload(blue.id)
        events += [json.loads(line) for line in lines if line != "[DONE]"]
    assert {event["ratchet"]["checkpoint"] for event in events} == {blue.id}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == expected


def test_traffic_is_counted_by_checkpoint(server: Server, tokens: Iterator[int], green: Checkpoint) -> None:
    server.load(green)
    server.client.switch(green.id, next(tokens))
    before = server.client.stats(green.id)
    with HttpGenerator(server.url, "ratchet") as generator:
        answers = generator.generate(CHATS, DECODING)
        assert generator.weights == green.weights
    after = server.client.stats(green.id)
    generated = sum(len(answer.token_logprobs) for answer in answers)
    assert (after.requests - before.requests, after.errors) == (len(CHATS), 0)
    assert after.generated_tokens - before.generated_tokens == generated
    assert after.latency_p50_s is not None
    assert after.latency_p95_s is not None
    assert 0 < after.latency_p50_s <= after.latency_p95_s


def test_a_checkpoint_that_must_not_be_served_is_refused(
    server: Server, blue: Checkpoint, green: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ServingError, match="not the expected"):
        server.client.load("other", str(blue.path), green.weights)
    half = shutil.copytree(blue.path, tmp_path / "half")
    (half / "config.json").unlink()
    with pytest.raises(ServingError, match=r"config\.json is missing"):
        server.client.load("half", str(half), blue.weights)
    with pytest.raises(ServingError, match="is not a folder"):
        server.client.load("nowhere", str(tmp_path / "nowhere"), blue.weights)
    assert not {"other", "half", "nowhere"} & server.client.health().loaded.keys()


def test_a_stale_deployer_is_refused(
    server: Server, tokens: Iterator[int], blue: Checkpoint, green: Checkpoint
) -> None:
    stale, fresh = next(tokens), next(tokens)
    server.load(blue)
    server.load(green)
    server.client.switch(blue.id, fresh)
    with pytest.raises(ServingError, match=f"409.*{stale} is lower than {fresh}"):
        server.client.switch(green.id, stale)
    with pytest.raises(ServingError, match="blue is live"):
        server.client.unload(blue.id)
    live = server.client.live()
    assert live is not None
    assert (live.checkpoint_id, live.fencing_token) == (blue.id, fresh)


def test_unknown_checkpoints_are_refused_by_name(server: Server, tokens: Iterator[int]) -> None:
    for ask in (
        lambda: server.client.switch("red", next(tokens)),
        lambda: server.client.score("red", CHATS, [""] * len(CHATS)),
        lambda: server.client.generate("red", CHATS, DECODING),
        lambda: server.client.stats("red"),
    ):
        with pytest.raises(ServingError, match=r"404.*'red'"):
            ask()
    server.client.unload("red")


def test_a_killed_server_serves_the_same_checkpoint_after_its_restart(
    start: Start, engine: dict[str, str], blue: Checkpoint, green: Checkpoint, tmp_path: Path
) -> None:
    first = start(tmp_path / "home", **engine)
    first.load(blue)
    first.load(green)
    first.client.switch(blue.id, 3)
    first.client.switch(green.id, 9)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    with pytest.raises(TransientError, match="inference server"):
        first.client.live()
    second = start(tmp_path / "home", **engine)
    assert second.client.live() == Live(checkpoint_id=green.id, weights=green.weights, fencing_token=9)
    with HttpGenerator(second.url, "ratchet") as generator:
        assert {answer.weights for answer in generator.generate(CHATS, DECODING)} == {green.weights}
    second.load(blue)
    with pytest.raises(ServingError, match="8 is lower than 9"):
        second.client.switch(blue.id, 8)
    assert second.end(signal.SIGTERM) == 0


def test_two_servers_cannot_share_a_home_or_a_port(server: Server, tmp_path: Path) -> None:
    port = int(server.url.rpartition(":")[2])
    for home, says in ((server.home, "another inference server runs in"), (tmp_path / "other", f"port {port}")):
        done = subprocess.run(command(home, port), capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 1
        assert says in done.stderr
        assert "Traceback" not in done.stderr
