"""The generator over HTTP, against a real server that plays a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr
from ratchet.data.example import Message
from ratchet.errors import GenerationError, ReasoningOnly, TransientError
from ratchet.inference.generator import Chat, Decoding, Generator
from ratchet.inference.http_generator import MOST_REASONED, HttpGenerator
from ratchet.settings.serving import InferenceSettings

Reply = tuple[int, Any]
"""A status, and a JSON value or a text."""

DECODING = Decoding(max_new_tokens=8, seed=3, stop=(";",))


def ask(text: str) -> Chat:
    return (Message(role="user", content=text),)


def answer(text: str | None, finish_reason: str = "stop", logprobs: list[float] | None = None, **body: Any) -> Reply:
    content = [{"token": "x", "logprob": logprob} for logprob in logprobs or []]
    choice = {"message": {"content": text}, "finish_reason": finish_reason, "logprobs": {"content": content}}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 5}, **body}


class ScriptedServer(ThreadingHTTPServer):
    """Answers with what ``script`` makes of each request's body, and notes requests and how many ran at once."""

    def __init__(self, script: Callable[[dict[str, Any]], Reply]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.most_at_once = 0
        self.at_once = 0
        self.counting = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.counting:
            self.server.requests.append(body)
            self.server.headers = dict(self.headers)
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        status, reply = self.server.script(body)
        with self.server.counting:
            self.server.at_once -= 1
        content = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        if status == 429:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: ARG002
        return None


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    """Starts servers that play a script, or a list of replies one after the other."""
    servers: list[ScriptedServer] = []

    def start(script: Callable[[dict[str, Any]], Reply] | list[Reply]) -> ScriptedServer:
        replies = iter(script) if isinstance(script, list) else None
        server = ScriptedServer(lambda body: next(replies) if replies else script(body))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def connect() -> Iterator[Callable[..., HttpGenerator]]:
    generators: list[HttpGenerator] = []

    def make(server: ScriptedServer | str, **settings: Any) -> HttpGenerator:
        url = server if isinstance(server, str) else server.url
        retries = {name: settings.pop(name) for name in ("max_attempts", "first_pause_s") if name in settings}
        inference = InferenceSettings(**settings)
        generators.append(HttpGenerator(url, "small", inference, **{"first_pause_s": 0.001, **retries}))
        return generators[-1]

    yield make
    for generator in generators:
        generator.close()


Serve = Callable[..., ScriptedServer]
Connect = Callable[..., HttpGenerator]


def test_it_asks_in_the_openai_shape_and_reads_the_answer(serve: Serve, connect: Connect) -> None:
    server = serve([answer("2", "length", [-0.5, -0.25])])
    generator = connect(server, api_key=SecretStr("secret"))
    [generation] = generator.generate([ask("1+1=")], DECODING)
    assert isinstance(generator, Generator)
    assert server.requests == [
        {
            "model": "small",
            "messages": [{"role": "user", "content": "1+1="}],
            "max_tokens": 8,
            "temperature": 0.0,
            "top_p": 1.0,
            "seed": 3,
            "logprobs": True,
            "stop": [";"],
        }
    ]
    assert server.headers["authorization"] == "Bearer secret"
    assert (generation.text, generation.finish_reason, generation.prompt_tokens) == ("2", "length", 5)
    assert generation.token_logprobs == (-0.5, -0.25)
    assert generation.weights == generator.weights == "remote:small"


def test_the_weights_are_those_that_the_server_names(serve: Serve, connect: Connect) -> None:
    told = {"ratchet": {"checkpoint": "cp-1", "weights": "abc"}, "system_fingerprint": "cp-1-abc"}
    generator = connect(serve([answer("2", **told), answer("2", system_fingerprint="fp_7")]))
    assert generator.generate([ask("1")], DECODING)[0].weights == generator.weights == "abc"
    assert generator.generate([ask("1")], DECODING)[0].weights == generator.weights == "fp_7"


def test_answers_come_in_the_order_asked_from_bounded_requests(serve: Serve, connect: Connect) -> None:
    together = threading.Barrier(3)

    def echo(body: dict[str, Any]) -> Reply:
        together.wait(60)
        return answer(body["messages"][0]["content"])

    server = serve(echo)
    seen: list[tuple[int, int]] = []
    texts = [str(number) for number in range(9)]
    generations = connect(server, concurrency=3).generate(
        [ask(text) for text in texts], DECODING, lambda *at: seen.append(at)
    )
    assert [generation.text for generation in generations] == texts
    assert server.most_at_once == 3
    assert seen == [(done, 9) for done in range(1, 10)]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_transient_error_is_retried(serve: Serve, connect: Connect, status: int) -> None:
    server = serve([(status, "busy"), (status, {"error": "busy"}), answer("2")])
    assert connect(server).generate([ask("1+1=")], DECODING)[0].text == "2"
    assert len(server.requests) == 3


def test_an_error_that_lasts_is_transient(serve: Serve, connect: Connect) -> None:
    server = serve([(503, "busy")] * 3)
    with pytest.raises(TransientError, match="after 3 attempts: status 503: busy"):
        connect(server, max_attempts=3).generate([ask("1+1=")], DECODING)


def test_the_number_of_requests_in_flight_follows_the_setting(serve: Serve, connect: Connect) -> None:
    """Each request gives a second one a moment to come beside it."""
    both = threading.Barrier(2)

    def meet(_body: dict[str, Any]) -> Reply:
        try:
            both.wait(0.1)
        except threading.BrokenBarrierError:
            return answer("alone")
        return answer("together")

    chats = [ask("1+1="), ask("1+2=")]
    assert {each.text for each in connect(serve(meet), concurrency=1).generate(chats, DECODING)} == {"alone"}


def test_pauses_double(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    generator = connect(serve([(503, "busy"), (503, "busy"), answer("2")]), first_pause_s=8.0)
    assert generator.generate([ask("1+1=")], DECODING)[0].text == "2"
    assert 4.0 <= pauses[0] <= 8.0 <= pauses[1] <= 16.0


def test_a_server_that_is_not_there_is_a_transient_error(serve: Serve, connect: Connect) -> None:
    server = serve([])
    server.shutdown()
    server.server_close()
    with pytest.raises(TransientError, match="ConnectError"):
        connect(server.url, max_attempts=2).generate([ask("1+1=")], DECODING)


def test_a_server_that_never_answers_is_a_transient_error(serve: Serve, connect: Connect) -> None:
    over = threading.Event()

    def hang(_body: dict[str, Any]) -> Reply:
        over.wait(60)
        return answer("late")

    try:
        with pytest.raises(TransientError, match="ReadTimeout"):
            connect(serve(hang), max_attempts=1, timeout_s=0.05).generate([ask("1+1=")], DECODING)
    finally:
        over.set()


NO_ANSWERS = {
    "error body": (200, {"error": {"message": "CUDA out of memory"}}),
    "error beside an answer": (200, {**answer("2")[1], "error": "half of it failed"}),
    "error as an object": (200, {"object": "error", "message": "CUDA out of memory"}),
    "error as the text": answer("Error: CUDA out of memory"),
    "traceback as the text": answer("Traceback (most recent call last): …"),
    "bad request": (400, {"error": {"message": "no model 'small'"}}),
    "not json": (200, "<html>It works!</html>"),
    "not an object": (200, [1, 2]),
    "pending": (200, {"job_id": "7", "status": "pending"}),
    "no choice": (200, {"choices": []}),
    "no text": answer(None),
    "tool call": answer("2", "tool_calls"),
    "filtered": answer("", "content_filter"),
    "unfinished": answer("2", finish_reason=None),
    "broken log-probabilities": (200, {"choices": [{**answer("2")[1]["choices"][0], "logprobs": {"content": [{}]}}]}),
}


@pytest.mark.parametrize("reply", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_a_malformed_answer_is_an_error(serve: Serve, connect: Connect, reply: Reply) -> None:
    server = serve([reply])
    with pytest.raises(GenerationError, match=server.url):
        connect(server).generate([ask("1+1=")], DECODING)
    assert len(server.requests) == 1


def test_a_text_about_an_error_is_an_answer_where_tokens_prove_it(serve: Serve, connect: Connect) -> None:
    server = serve([answer("Error: the sum is 2", logprobs=[-0.1])])
    assert connect(server).generate([ask("1+1=")], DECODING)[0].text == "Error: the sum is 2"


@pytest.mark.parametrize("least", ["null", "-Infinity", "-1e999", "NaN"])
def test_a_log_probability_that_is_no_number_is_the_least(serve: Serve, connect: Connect, least: str) -> None:
    whole = json.dumps(answer("2", logprobs=[-0.5, -12345.0])[1]).replace("-12345.0", least)
    [generation] = connect(serve([(200, whole)])).generate([ask("1+1=")], DECODING)
    assert generation.token_logprobs == (-0.5, -9999.0)


def refusing(*fields: str, says: str = "Unsupported parameter: '{}' is not supported with this model.") -> Any:
    """A script of a server that refuses these fields, the first that it finds."""

    def script(body: dict[str, Any]) -> Reply:
        named = next((field for field in fields if field in body), None)
        if named is None:
            return answer("2")
        return 400, {"error": {"message": says.format(named), "param": named}}

    return script


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        (("seed",), {"max_tokens", "logprobs", "top_p"}),
        (("logprobs",), {"max_tokens", "seed", "top_p"}),
        (("max_tokens",), {"max_completion_tokens", "seed", "logprobs", "top_p"}),
        (("top_p",), {"max_tokens", "seed", "logprobs"}),
        (("seed", "logprobs", "top_p", "max_tokens", "max_completion_tokens"), set()),
    ],
)
def test_a_field_that_the_server_refuses_is_left_out_from_then_on(
    serve: Serve, connect: Connect, fields: tuple[str, ...], sent: set[str]
) -> None:
    server = serve(refusing(*fields))
    generator = connect(server)
    for _ in range(2):
        assert generator.generate([ask("1+1=")], DECODING)[0].text == "2"
    assert len(server.requests) == 2 + len(fields)
    droppable = {"seed", "logprobs", "top_p", "max_tokens", "max_completion_tokens"}
    assert server.requests[-1].keys() & droppable == sent
    assert server.requests[-1].get("max_completion_tokens", 8) == 8


def test_fields_are_found_in_a_refusal_without_a_param(serve: Serve, connect: Connect) -> None:
    says = "[{{'type': 'extra_forbidden', 'loc': ['body', '{}'], 'msg': 'Extra inputs are not permitted'}}]"
    server = serve([(422, says.format("seed")), answer("2")])
    assert connect(server).generate([ask("1+1=")], DECODING)[0].text == "2"
    assert "seed" not in server.requests[-1]


def test_a_limit_that_is_too_high_is_an_error_and_never_left_out(serve: Serve, connect: Connect) -> None:
    server = serve(refusing("max_tokens", says="{} is too large: at most 4 tokens can be asked for."))
    with pytest.raises(GenerationError, match=f"{server.url}.*status 400.*at most 4"):
        connect(server).generate([ask("1+1=")], DECODING)
    assert len(server.requests) == 1


def test_what_changes_an_answer_is_never_left_out(serve: Serve, connect: Connect) -> None:
    for field, decoding in (("top_p", Decoding(top_p=0.5)), ("temperature", DECODING), ("stop", DECODING)):
        server = serve(refusing(field))
        with pytest.raises(GenerationError, match=f"'{field}' is not supported"):
            connect(server).generate([ask("1+1=")], decoding)
        assert len(server.requests) == 1


def reasoned(text: str | None = "") -> Reply:
    message = {"content": text, "reasoning_content": "First I add one and one."}
    return 200, {"choices": [{"message": message, "finish_reason": "length"}], "usage": {"completion_tokens": 8}}


def test_an_answer_of_reasoning_alone_is_told_apart_and_paid_for(serve: Serve, connect: Connect) -> None:
    server = serve(lambda body: reasoned() if body["messages"][0]["content"] == "1" else answer("2"))
    paid: list[Any] = []
    found = connect(server).generate([ask("1"), ask("2")], DECODING, arrived=paid.append)
    assert [(each.text, each.reasoning_only) for each in found] == [("", True), ("2", False)]
    assert sorted(each.answer_tokens for each in paid) == [0, 8]


@pytest.mark.parametrize("text", ["", None])
def test_spending_stops_where_every_answer_is_reasoning_alone(serve: Serve, connect: Connect, text: str | None) -> None:
    server = serve(lambda _body: reasoned(text))
    paid: list[Any] = []
    with pytest.raises(GenerationError, match=r"reasoning only.*raise max_tokens above 8"):
        connect(server).generate([ask("1"), ask("2")], DECODING, arrived=paid.append)
    assert len(paid) == 2


def test_a_server_that_has_written_texts_may_reason_for_too_long_some_times(serve: Serve, connect: Connect) -> None:
    server = serve([answer("2"), reasoned(), answer("2"), *[reasoned()] * (MOST_REASONED + 1)])
    generator = connect(server)
    several = [generator.generate([ask("1")], DECODING)[0].reasoning_only for _ in range(MOST_REASONED + 2)]
    assert several == [False, True, False, *[True] * (MOST_REASONED - 1)]
    with pytest.raises(ReasoningOnly):
        generator.generate([ask("1")], DECODING)


def test_one_error_ends_the_whole_run(serve: Serve, connect: Connect) -> None:
    def fail_on_3(body: dict[str, Any]) -> Reply:
        return (400, "no 3") if body["messages"][0]["content"] == "3" else answer("2")

    server = serve(fail_on_3)
    with pytest.raises(GenerationError, match="no 3"):
        connect(server, concurrency=1).generate([ask(str(number)) for number in range(50)], DECODING)
    assert len(server.requests) < 50


def test_the_chat_api_cannot_score(connect: Connect) -> None:
    with pytest.raises(GenerationError, match="local generator"):
        connect("http://127.0.0.1:1").score([ask("1")], ["2"])
