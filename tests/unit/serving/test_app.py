"""Responses to clients: the OpenAI shape, the answering checkpoint, and errors with the way out."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from ratchet.data.example import Message
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_folder import weights_digest
from ratchet.inference.sampling import Answer
from ratchet.serving.app import build_app
from ratchet.serving.chat_api import ChatRequest
from ratchet.serving.chat_route import MAX_BODY_BYTES
from ratchet.serving.http_errors import ClientDisconnected, read_body
from ratchet.serving.model_manager import ModelManager
from ratchet.serving.pending import PendingRequest
from ratchet.serving.server_home import StateFile
from ratchet.settings.serving import ServingSettings
from starlette.requests import Request

from tests.support.workers import wait_until

from .conftest import ADMIN, TOKEN

ROUTE = "/v1/chat/completions"

Serve = Callable[..., TestClient]
GoLive = Callable[..., None]


def question(text: str = "1+1=", **fields: Any) -> dict[str, Any]:
    return {"model": "ratchet", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}


@pytest.fixture
def live(serve: Serve, go_live: GoLive, blue: Path) -> TestClient:
    client = serve()
    go_live(client, blue)
    return client


def events(text: str) -> list[dict[str, Any]]:
    """The bodies of a stream that ended well."""
    *chunks, done = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def test_an_answer_has_the_openai_shape_and_names_its_checkpoint(live: TestClient, blue: Path) -> None:
    response = live.post(ROUTE, json=question(logprobs=True))
    body = response.json()
    weights = weights_digest(blue)
    assert body["object"] == "chat.completion"
    assert body["model"] == "ratchet"
    said = {"checkpoint": "cp-1", "weights": weights, "confidence": None, "should_abstain": None}
    assert body["ratchet"] == said
    assert body["system_fingerprint"] == f"cp-1-{weights[:12]}"
    assert response.headers["x-ratchet-checkpoint"] == "cp-1"
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] == "length"
    assert len(choice["logprobs"]["content"]) == body["usage"]["completion_tokens"] == 8
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 8


def test_an_answer_has_its_confidence_by_the_deployed_calibration(live: TestClient) -> None:
    before = live.post(ROUTE, json=question(logprobs=True)).json()
    logprobs = [token["logprob"] for token in before["choices"][0]["logprobs"]["content"]]
    shipped = Certainty(
        kind="mean", temperature=1.7, threshold=0.98, precision=0.9, fitted_on=200, items={"chain_sum": 400}
    )
    switch = {"checkpoint_id": "cp-1", "fencing_token": 2, "certainty": shipped.model_dump()}
    live.post("/admin/switch", json=switch, headers=ADMIN).raise_for_status()
    answer = live.post(ROUTE, json=question()).json()["ratchet"]
    assert answer["confidence"] == pytest.approx(shipped.confidence(logprobs))
    assert answer["should_abstain"]
    last = events(live.post(ROUTE, json=question(stream=True)).text)[-1]["ratchet"]
    assert last["confidence"] == pytest.approx(answer["confidence"])
    assert live.get("/health").json()["live"]["certainty"] == shipped.model_dump()
    assert "ratchet_serving_switches_total 1.0" in live.get("/metrics").text


def test_it_is_greedy_unless_asked_otherwise(live: TestClient) -> None:
    def texts(**fields: Any) -> list[str]:
        answers = [live.post(ROUTE, json=question(max_tokens=24, **fields)).json() for _ in range(2)]
        return [answer["choices"][0]["message"]["content"] for answer in answers]

    one, other = texts()
    assert one == other
    sampled = [texts(temperature=1.0, seed=seed) for seed in (1, 2)]
    assert [first == again for first, again in sampled] == [True, True]
    assert sampled[0] != sampled[1]


def test_a_stream_adds_up_to_the_whole_answer(live: TestClient) -> None:
    asked = question(max_tokens=40, logprobs=True)
    whole = live.post(ROUTE, json=asked).json()
    response = live.post(ROUTE, json={**asked, "stream": True, "stream_options": {"include_usage": True}})
    *chunks, usage = events(response.text)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-ratchet-checkpoint"] == "cp-1"
    assert {chunk["ratchet"]["checkpoint"] for chunk in chunks} == {"cp-1"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    tokens = [t for chunk in chunks for t in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert text == whole["choices"][0]["message"]["content"]
    assert tokens == whole["choices"][0]["logprobs"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "length"]
    assert usage["usage"] == whole["usage"]


def test_a_stop_string_ends_answers_and_streams(live: TestClient) -> None:
    free = live.post(ROUTE, json=question(max_tokens=40)).json()["choices"][0]["message"]["content"]
    stop = free[4:7]
    cut = live.post(ROUTE, json=question(max_tokens=40, stop=stop)).json()["choices"][0]
    chunks = events(live.post(ROUTE, json=question(max_tokens=40, stop=[stop], stream=True)).text)
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert cut["message"]["content"] == streamed == free[: free.index(stop)]
    assert cut["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "stop"


NEUTRAL: dict[str, dict[str, Any]] = {
    "the values of a full form": {
        "n": 1,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "best_of": 1,
        "top_logprobs": 0,
        "logprobs": False,
        "response_format": {"type": "text"},
        "modalities": ["text"],
    },
    "nulls": dict.fromkeys(("n", "stop", "seed", "stream", "logprobs", "tools", "response_format", "temperature")),
    "who asks": {"user": "me", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "cache_prompt": True},
    "tools that are not to be called": {"tools": [{"type": "function"}], "tool_choice": "none"},
    "no tools": {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    "stream options without a stream": {"stream_options": {"include_usage": True}},
    "template variables that leave something out": {"chat_template_kwargs": {"enable_thinking": False}},
    "whole numbers with a point": {"max_tokens": 8.0, "seed": 0.0},
    "a limit beyond the context": {"max_tokens": 32_000, "stop": "no such text"},
    "sampling from nothing but the likeliest": {"temperature": 1.0, "top_p": 0},
    "stop strings that stop nothing": {"stop": ["", None]},
    "next to nothing to sample from": {"temperature": 1.0, "top_p": 1e-300},
    "next to no temperature": {"temperature": 1e-40},
    "text in parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "1+"}, {"type": "text", "text": "1="}], "name": "me"}
        ]
    },
}


@pytest.mark.parametrize("fields", NEUTRAL.values(), ids=NEUTRAL.keys())
def test_a_value_without_effect_changes_nothing(live: TestClient, fields: dict[str, Any]) -> None:
    plain = question(max_tokens=1000) if fields.get("max_tokens") == 32_000 else question()
    answer = live.post(ROUTE, json={**plain, **fields}).json()
    expected = live.post(ROUTE, json=plain).json()
    assert answer["choices"] == expected["choices"]
    assert answer["usage"] == expected["usage"]


def test_a_begun_answer_is_continued_however_a_client_asks_for_that(live: TestClient) -> None:
    turns = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "1+"}]
    plain = live.post(ROUTE, json=question(messages=turns)).json()
    as_vllm = {"continue_final_message": True, "add_generation_prompt": False}
    assert live.post(ROUTE, json=question(messages=turns, **as_vllm)).json()["choices"] == plain["choices"]
    assert plain["usage"]["prompt_tokens"] == live.post(ROUTE, json=question()).json()["usage"]["prompt_tokens"] + 2
    for refused in (
        question(add_generation_prompt=False),
        question(**as_vllm),
        question(messages=turns, continue_final_message=False),
    ):
        response = live.post(ROUTE, json=refused)
        param = "continue_final_message" if "continue_final_message" in refused else "add_generation_prompt"
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def turn(content: Any = "1", role: str = "user", **fields: Any) -> dict[str, Any]:
    return question(messages=[{"role": role, "content": content, **fields}])


def test_the_turn_of_a_developer_is_the_system_turn_and_answers_are_sent_back_as_they_came(live: TestClient) -> None:
    def answer(role: str) -> Any:
        first = live.post(ROUTE, json=question()).json()["choices"][0]["message"]
        echoed = {**first, "refusal": None, "tool_calls": None, "annotations": []}
        turns = [{"role": role, "content": "Be brief. ä 中 😀"}, {"role": "user", "content": "1"}, echoed]
        asked = {"model": "ratchet", "messages": [*turns, {"role": "user", "content": "2"}], "max_completion_tokens": 4}
        return live.post(ROUTE, json=asked).json()["choices"]

    assert answer("developer") == answer("system")


WRONG = [
    (question(model="gpt-5"), 404, "model_not_found", "model", "Known: ratchet, cp-1"),
    ({"model": "ratchet"}, 400, "invalid_request", "messages", "required"),
    (question(messages=[]), 400, "invalid_request", "messages", "at least 1"),
    (question(temperature=-1), 400, "invalid_request", "temperature", "greater"),
    (question(temperature="1"), 400, "invalid_request", "temperature", "number"),
    (question(max_tokens=True), 400, "invalid_request", "max_tokens", "integer"),
    (question(seed=0.5), 400, "invalid_request", "seed", "integer"),
    (question(stop=[5]), 400, "invalid_request", "stop.0", "string"),
    (turn(role="robot"), 400, "invalid_request", "messages.0.role", "'assistant'"),
    (turn(None), 400, "invalid_request", "messages.0.content", "string"),
    (turn([{"type": "image_url"}]), 400, "invalid_request", "messages.0.content", "only text is supported"),
    (turn(tool_calls=[{"id": "1"}]), 400, "invalid_request", "messages.0", "tool calls are not supported"),
    (question("1" * 1100), 400, "context_length_exceeded", "messages", "1024"),
    (question("1" * 12_000), 400, "context_length_exceeded", "messages", "1024"),
    (question(max_tokens=0), 400, "invalid_request", "max_tokens", "greater"),
    (question(n=0), 400, "invalid_request", "n", "greater"),
    (question(n=129), 400, "invalid_request", "n", "less"),
    (question(top_logprobs=3), 400, "invalid_request", "top_logprobs", "only with logprobs"),
    (question(logprobs=True, top_logprobs=21), 400, "invalid_request", "top_logprobs", "less"),
    (question(response_format={"type": "json_object"}), 400, "unsupported", "response_format", "engine = vllm"),
    (question(chat_template_kwargs={"tools": []}), 400, "unsupported", "chat_template_kwargs", "set by the server"),
    (question(chat_template_kwargs={"enable_thinking": True}), 400, "unsupported", "chat_template_kwargs", "not read"),
    (question(ignore_eos=True), 400, "unsupported", "ignore_eos", "max_tokens and stop"),
    (question(tool_choice="required"), 400, "unsupported", "tool_choice", "describe them"),
    (turn(role="tool"), 400, "invalid_request", "messages.0", "tool calls are not supported"),
    (question(tools=[{"type": "function"}]), 400, "unsupported", "tools", "describe them"),
    (question(presence_penalty=1), 400, "unsupported", "presence_penalty", "temperature, top_p and seed"),
    (question(temperatur=1), 400, "unknown_field", "temperatur", "did you mean temperature?"),
    (question(quux=1), 400, "unknown_field", "quux", "leave it out"),
    (question(messages=[{"role": "user", "content": "1"}] * 300), 400, "too_many_messages", "messages", "256"),
]


@pytest.mark.parametrize(("asked", "status", "code", "param", "says"), WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_unsupported_fields_are_refused_with_a_reason(
    live: TestClient, asked: dict[str, Any], status: int, code: str, param: str, says: str, stream: bool
) -> None:
    response = live.post(ROUTE, json={**asked, "stream": stream})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]


def test_an_unknown_route_lists_the_known_ones(live: TestClient) -> None:
    for response in (live.post("/v1/embeddings", json={}), live.get(ROUTE)):
        assert "POST /v1/chat/completions" in response.json()["error"]["message"]
    assert live.get("/v1/models/cp-1").json() == live.get("/v1/models").json()["data"][1]
    assert live.get("/v1/models/gpt-5").json()["error"]["code"] == "model_not_found"


def test_without_a_limit_of_its_own_an_answer_is_cut_to_the_context(live: TestClient) -> None:
    asked = question("1" * 1000)
    del asked["max_tokens"]
    usage = live.post(ROUTE, json=asked).json()["usage"]
    assert usage["total_tokens"] <= 1024


def test_large_bodies_are_refused(serve: Serve) -> None:
    response = serve().post(ROUTE, json=question("1" * MAX_BODY_BYTES))
    assert response.status_code == 413


def test_a_body_that_is_not_json_is_refused(live: TestClient) -> None:
    assert live.post(ROUTE, content=b"1+1=").status_code == 400


def test_before_the_first_deployment_clients_are_told_to_retry(serve: Serve) -> None:
    response = serve().post(ROUTE, json=question())
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "no checkpoint is live" in response.json()["error"]["message"]


def test_a_full_queue_tells_clients_to_retry(
    make_fleet: Callable[..., ModelManager], go_live: GoLive, blue: Path
) -> None:
    manager = make_fleet(max_queue=1)
    entered, let_go = threading.Event(), threading.Event()

    def hold(_answer: Answer) -> None:
        entered.set()
        let_go.wait(60)

    with TestClient(build_app(manager, ServingSettings(), SecretStr(TOKEN))) as client:
        go_live(client, blue)
        loaded = manager.resolve("ratchet")
        prompt = loaded.generator.prompt((Message(role="user", content="1"),), Decoding(max_new_tokens=1))
        loaded.batcher.submit(PendingRequest(prompt, 60, hold))
        assert entered.wait(60)
        loaded.batcher.submit(PendingRequest(prompt, 60))
        page = client.get("/metrics").text
        response = client.post(ROUTE, json=question())
        let_go.set()
    assert "ratchet_serving_waiting 1.0" in page
    assert "ratchet_serving_in_flight 1.0" in page
    assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
    assert int(response.headers["retry-after"]) > 0


def test_a_request_past_its_time_limit_is_abandoned(serve: Serve, go_live: GoLive, blue: Path) -> None:
    client = serve(request_timeout_s=0.2)
    go_live(client, blue)
    asked = question("1", max_tokens=1000)
    assert client.post(ROUTE, json=asked).json()["error"]["code"] == "timeout"
    assert '"code": "timeout"' in client.post(ROUTE, json={**asked, "stream": True}).text
    short = question("1", max_tokens=1)
    wait_until(lambda: client.post(ROUTE, json=short).status_code == 200, what="an answer to a short request")


def test_models_health_and_metrics_show_the_live_checkpoint(
    serve: Serve, go_live: GoLive, blue: Path, green: Path
) -> None:
    client = serve()
    assert client.get("/health").json()["live"] is None
    go_live(client, blue)
    go_live(client, green, "cp-2", 2)
    client.post(ROUTE, json=question())
    client.post(ROUTE, json=question(model="gpt-5"))
    models = {entry["id"]: entry["ratchet"]["checkpoint"] for entry in client.get("/v1/models").json()["data"]}
    assert models == {"ratchet": "cp-2", "cp-1": "cp-1", "cp-2": "cp-2"}
    assert client.get("/health").json()["live"]["checkpoint_id"] == "cp-2"
    page = client.get("/metrics").text
    assert 'ratchet_serving_requests_total{status="200"} 1.0' in page
    assert 'ratchet_serving_requests_total{status="404"} 1.0' in page
    assert 'ratchet_serving_tokens_total{kind="generated"} 8.0' in page
    assert 'ratchet_serving_live{checkpoint="cp-2"} 1.0' in page
    assert "ratchet_serving_switches_total 2.0" in page
    assert "ratchet_serving_latency_seconds_count 1.0" in page


def test_a_loaded_checkpoint_can_be_asked_by_its_id(serve: Serve, go_live: GoLive, blue: Path, green: Path) -> None:
    client = serve()
    go_live(client, blue)
    go_live(client, green, "cp-2", 2)
    assert client.post(ROUTE, json=question(model="cp-1")).json()["ratchet"]["checkpoint"] == "cp-1"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic dGhlOg=="}])
@pytest.mark.parametrize("route", ["load", "unload", "switch", "score", "generate"])
def test_admin_routes_need_the_token(serve: Serve, route: str, headers: dict[str, str]) -> None:
    assert serve().post(f"/admin/{route}", json={}, headers=headers).status_code == 401


def test_a_token_can_be_tried_before_anything_is_loaded(serve: Serve) -> None:
    client = serve()
    assert client.get("/admin/ping", headers=ADMIN).status_code == 200
    assert client.get("/admin/ping", headers={"authorization": "Bearer wrong"}).status_code == 401


class Unbatchable:
    """A working model with a faulty batch."""

    def __init__(self, generator: LocalGenerator):
        self._generator = generator

    def continuous_batch(self, _max_rows: int) -> Any:
        raise ValueError("no batch can be made")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def test_health_fails_once_the_thread_that_answers_has_ended(tmp_path: Path, go_live: GoLive, blue: Path) -> None:
    def load(path: Path, weights: str) -> Any:
        return Unbatchable(LocalGenerator.load(path, expected_weights=weights))

    manager = ModelManager(ServingSettings(), StateFile(tmp_path), load)
    with TestClient(build_app(manager, ServingSettings(), SecretStr(TOKEN))) as client:
        assert client.get("/health").status_code == 200
        go_live(client, blue)
        wait_until(lambda: client.get("/health").status_code == 503)
        health = client.get("/health").json()
        assert health["problem"] == "thread batcher-cp-1 has ended unexpectedly"
        assert health["live"]["checkpoint_id"] == "cp-1"
        refused = client.post(ROUTE, json=question())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stalled")


def test_a_checkpoint_that_cannot_be_loaded_is_a_problem_of_a_server_in_health(
    tmp_path: Path, make_fleet: Callable[..., ModelManager], go_live: GoLive, blue: Path
) -> None:
    copy = shutil.copytree(blue, tmp_path / "copy")
    with TestClient(build_app(make_fleet(), ServingSettings(), SecretStr(TOKEN))) as client:
        go_live(client, copy)
    shutil.rmtree(copy)
    with TestClient(build_app(make_fleet(), ServingSettings(), SecretStr(TOKEN))) as client:
        health = client.get("/health")
    assert health.status_code == 200
    assert "cannot be loaded again" in health.json()["problem"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_that_never_comes_times_out_and_counts_as_a_failure(
    tmp_path: Path, go_live: GoLive, blue: Path, stream: bool
) -> None:
    class Still(Unbatchable):
        """Its first step takes as long as the test."""

        def continuous_batch(self, _max_rows: int) -> Any:
            over.wait(60)
            return self._generator.continuous_batch(8)

    over = threading.Event()
    settings = ServingSettings(request_timeout_s=0.2)
    manager = ModelManager(settings, StateFile(tmp_path), lambda path, _weights: Still(LocalGenerator.load(path)))  # type: ignore[arg-type, return-value]
    with TestClient(build_app(manager, settings, SecretStr(TOKEN))) as client:
        go_live(client, blue)
        response = client.post(ROUTE, json=question(stream=stream))
        body = json.loads(response.text.split("data: ")[-1]) if stream else response.json()
        assert body["error"]["code"] == "timeout"
        assert response.status_code == (200 if stream else 503)
        assert manager.named("cp-1").traffic.read().errors == 1
        probe = {"checkpoint_id": "cp-1", "chats": [[{"role": "user", "content": "1"}]], "decoding": {}}
        refused = client.post("/admin/generate", json=probe, headers=ADMIN)
        assert refused.status_code == 422
        assert "cp-1 does not answer clients" in refused.json()["error"]["message"]
        over.set()


def test_a_client_that_disconnects_in_its_body_is_no_server_error() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(ClientDisconnected):
        asyncio.run(read_body(request, ChatRequest, 1_000))


def test_a_request_for_more_answers_than_can_ever_wait_is_not_told_to_retry(
    serve: Serve, go_live: GoLive, blue: Path
) -> None:
    client = serve(max_queue=4)
    go_live(client, blue)
    for route, fields in ((ROUTE, question(n=5)), ("/v1/completions", {"model": "ratchet", "prompt": ["1"] * 5})):
        response = client.post(route, json=fields)
        assert response.status_code == 400
        assert "5 together; 4 fit (serving.max_queue)" in response.json()["error"]["message"]
    assert len(client.post(ROUTE, json=question(n=4, temperature=1.0)).json()["choices"]) == 4
