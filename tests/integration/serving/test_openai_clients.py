"""Programs that people have, against a real server: the openai package, lm-evaluation-harness, and the requests that
Open WebUI and LangChain send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from ratchet.data.example import Message
from ratchet.inference.generator import Decoding
from ratchet.inference.local_generator import LocalGenerator

from tests.support.server_processes import Checkpoint, Server

pytestmark = [pytest.mark.timeout(600)]

ASKED: Any = [{"role": "user", "content": "1+1="}]


@pytest.fixture(scope="module")
def server(start: Callable[..., Server], blue: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Server:
    running = start(tmp_path_factory.mktemp("server") / "home")
    running.load(blue)
    running.client.switch(blue.id, 1)
    return running


@pytest.fixture(scope="module")
def local(blue: Checkpoint) -> LocalGenerator:
    """The same weights in this process."""
    return LocalGenerator.load(blue.path)


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as connected:
        yield connected


def test_a_chat_is_answered_as_by_the_local_model(client: OpenAI, local: LocalGenerator) -> None:
    answer = client.chat.completions.create(model="ratchet", messages=ASKED, max_tokens=12)
    [expected] = local.generate([(Message(role="user", content="1+1="),)], Decoding(max_new_tokens=12))
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(expected.token_ids)
    assert answer.model_extra is not None
    assert answer.model_extra["ratchet"]["confidence"] is None


def test_a_stream_with_several_answers_adds_up_to_them(client: OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": "ratchet",
        "messages": ASKED,
        "max_tokens": 10,
        "n": 3,
        "temperature": 1.0,
        "seed": 7,
    }
    whole = client.chat.completions.create(**fields)
    texts, reasons, usage = ["", "", ""], [None] * 3, None
    for chunk in client.chat.completions.create(**fields, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage
    assert len(set(texts)) > 1, "the samples are independent"
    again = client.chat.completions.create(**fields)
    assert [choice.message.content for choice in again.choices] == texts
    other = client.chat.completions.create(**{**fields, "seed": 8})
    assert [choice.message.content for choice in other.choices] != texts


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_log_probabilities_name_the_likeliest_tokens(client: OpenAI, stream: bool) -> None:
    fields: dict[str, Any] = {"model": "ratchet", "messages": ASKED, "max_tokens": 6, "logprobs": True}
    told = client.chat.completions.create(**fields, top_logprobs=3, stream=stream)
    choices = [choice for chunk in told for choice in chunk.choices] if stream else told.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or []]
    assert 0 < len(tokens) <= 6
    for token in tokens:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob, "a greedy answer takes the likeliest token"
        assert token.top_logprobs == sorted(token.top_logprobs, key=lambda each: -each.logprob)


def test_stop_strings_end_an_answer(client: OpenAI) -> None:
    def text(**fields: Any) -> str:
        answer = client.chat.completions.create(model="ratchet", messages=ASKED, max_tokens=30, **fields)
        return answer.choices[0].message.content or ""

    free = text()
    stops = [free[3:5], "never", "nor", "this"]
    assert text(stop=stops) == text(stop=stops[0]) == free[: free.index(stops[0])]


def test_a_last_turn_of_the_assistant_is_continued(client: OpenAI, local: LocalGenerator) -> None:
    begun: Any = [*ASKED, {"role": "assistant", "content": "2"}]
    answer = client.chat.completions.create(model="ratchet", messages=begun, max_tokens=8)
    decoding = Decoding(max_new_tokens=8)
    asked = local.prompt((Message(role="user", content="1+1="),), decoding).token_ids
    [expected] = local.answer([local.codec.text_prompt((*asked, *local.codec.text_ids("2")), decoding)])
    assert answer.choices[0].message.content == expected.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(asked) + 1


def test_a_limit_beyond_the_context_is_cut_to_what_fits(client: OpenAI, local: LocalGenerator) -> None:
    answer = client.chat.completions.create(model="ratchet", messages=ASKED, max_completion_tokens=100_000)
    assert answer.usage is not None
    assert answer.usage.total_tokens <= local.context


def test_what_would_change_an_answer_is_refused_by_name(client: OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    refused: list[tuple[str, dict[str, Any]]] = [
        ("tools", {"tools": [tool]}),
        ("presence_penalty", {"presence_penalty": 0.5}),
        ("response_format", {"response_format": {"type": "json_object"}}),
    ]
    for name, fields in refused:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="ratchet", messages=ASKED, **fields)
        assert caught.value.param == name
    with pytest.raises(openai.NotFoundError, match="Known: ratchet"):
        client.chat.completions.create(model="gpt-5", messages=ASKED)
    uncalled = client.chat.completions.create(
        model="ratchet", messages=ASKED, max_tokens=4, tools=[tool], tool_choice="none"
    )
    assert uncalled.choices[0].message.content


def test_models_are_listed_whatever_the_key(server: Server, blue: Checkpoint) -> None:
    with OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong") as client:
        assert [model.id for model in client.models.list()] == ["ratchet", blue.id]
        assert client.models.retrieve("ratchet").id == "ratchet"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-5")
    with OpenAI(base_url=server.url, api_key="sk-wrong") as client, pytest.raises(openai.AuthenticationError):
        client.get("/admin/ping", cast_to=dict[str, Any])


def test_a_half_surrogate_is_refused_and_the_server_goes_on(server: Server, client: OpenAI) -> None:
    body = b'{"model": "ratchet", "messages": [{"role": "user", "content": "\\ud83d"}]}'
    assert httpx.post(f"{server.url}/v1/chat/completions", content=body).status_code == 400
    asked: Any = [{"role": "user", "content": "Hi \U0001f600"}]
    assert client.chat.completions.create(model="ratchet", messages=asked, max_tokens=2).usage


def test_completions_continue_a_text_as_it_is(client: OpenAI, local: LocalGenerator) -> None:
    ids = list(local.codec.text_ids("1+1="))
    fields: dict[str, Any] = {"model": "ratchet", "max_tokens": 6}
    one = client.completions.create(prompt="1+1=", **fields)
    several = client.completions.create(prompt=["1+1=", "2+2="], **fields)
    tokens = client.completions.create(prompt=[ids], **fields)
    echoed = client.completions.create(prompt="1+1=", echo=True, **fields)
    streamed = "".join(
        chunk.choices[0].text for chunk in client.completions.create(prompt="1+1=", echo=True, stream=True, **fields)
    )
    text = one.choices[0].text
    assert [choice.index for choice in several.choices] == [0, 1]
    assert text == several.choices[0].text == tokens.choices[0].text
    assert echoed.choices[0].text == streamed == "1+1=" + text
    assert one.usage is not None
    assert one.usage.prompt_tokens == len(ids)
    for wrong in ([], [[10**6]], [-1], [""]):
        with pytest.raises(openai.BadRequestError):
            client.completions.create(prompt=wrong, **fields)


def test_an_echoed_text_is_scored_as_by_the_local_model(client: OpenAI, local: LocalGenerator) -> None:
    text = "3+4=7"
    answer = client.completions.create(model="ratchet", prompt=text, echo=True, max_tokens=0, logprobs=2)
    [choice] = answer.choices
    [scores] = local.score_texts([local.codec.text_ids(text)], 2)
    assert choice.text == text
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == text
    assert choice.logprobs.text_offset == [0, 1, 2, 3, 4]
    first, *others = choice.logprobs.token_logprobs or []
    assert first is None
    assert others == pytest.approx(scores.logprobs[1:], abs=1e-4)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


OPEN_WEBUI: dict[str, Any] = {
    "stream": True,
    "model": "ratchet",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1="}],
    "stream_options": {"include_usage": True},
    "temperature": 0.8,
    "top_p": 0.9,
    "min_p": 0.0,
    "max_tokens": 4096,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": 42,
    "stop": [""],
    "logit_bias": {},
    "response_format": {"type": "text"},
}
"""What its chat sends with every field of its form filled in (backend/open_webui/utils/payload.py)."""

OPEN_WEBUI_TITLE: dict[str, Any] = {
    "model": "ratchet",
    "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title."}],
    "stream": False,
    "max_completion_tokens": 1000,
}

LANGCHAIN: dict[str, Any] = {
    "model": "ratchet",
    "messages": [
        {"content": "1+1=", "role": "user"},
        {"content": "2", "role": "assistant"},
        {"content": "And?", "role": "user"},
    ],
    "stream": False,
    "n": 1,
    "temperature": 0.7,
    "max_completion_tokens": 64,
    "stop": None,
    "parallel_tool_calls": True,
}
"""ChatOpenAI (libs/partners/openai/langchain_openai/chat_models/base.py)."""


@pytest.mark.parametrize(
    "body", [OPEN_WEBUI, OPEN_WEBUI_TITLE, LANGCHAIN], ids=["Open WebUI", "a title for Open WebUI", "LangChain"]
)
def test_requests_as_programs_send_them_are_answered(server: Server, body: dict[str, Any]) -> None:
    response = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    assert response.status_code == 200, response.text
    assert ("data: [DONE]" in response.text) is body["stream"]


PROBLEMS = [{"question": f"{n}+1=", "answer": str(n + 1), "choices": [str(n + 1), str(n)]} for n in range(4)]


def harness(model: str, output_type: str, options: dict[str, Any], **config: Any) -> list[dict[str, Any]]:
    """What lm-evaluation-harness records of PROBLEMS, a sample each."""
    from datasets import Dataset
    from lm_eval.api.registry import get_model
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    task = ConfigurableTask(
        config={
            "task": "sums",
            "custom_dataset": lambda **_options: {"test": Dataset.from_list(PROBLEMS)},
            "test_split": "test",
            "output_type": output_type,
            "doc_to_text": "{{question}}",
            **config,
        }
    )
    asks = get_model(model)(model="ratchet", **options)
    is_chat = model == "local-chat-completions"
    found: Any = evaluate(lm=asks, task_dict={"sums": task}, bootstrap_iters=0, apply_chat_template=is_chat)
    samples: list[dict[str, Any]] = found["samples"]["sums"]
    return samples


@pytest.mark.filterwarnings("ignore")
def test_lm_evaluation_harness_generates_and_compares_log_likelihoods(
    server: Server, blue: Checkpoint, local: LocalGenerator
) -> None:
    generated = harness(
        "local-chat-completions",
        "generate_until",
        {"base_url": f"{server.url}/v1/chat/completions"},
        doc_to_target="answer",
        generation_kwargs={"until": ["\n"], "max_gen_toks": 8},
        metric_list=[{"metric": "exact_match"}],
    )
    texts = [sample["resps"][0][0] for sample in generated]
    chats = [(Message(role="user", content=problem["question"]),) for problem in PROBLEMS]
    expected = local.generate(chats, Decoding(max_new_tokens=8, stop=("\n",)))
    assert texts == [generation.text for generation in expected]

    compared = harness(
        "local-completions",
        "multiple_choice",
        {
            "base_url": f"{server.url}/v1/completions",
            "tokenizer": str(blue.path),
            "tokenizer_backend": "huggingface",
            "max_length": 1024,
        },
        doc_to_target=0,
        doc_to_choice="choices",
        target_delimiter="",
        metric_list=[{"metric": "acc"}],
    )
    for sample, problem in zip(compared, PROBLEMS, strict=True):
        for (logprob, _is_greedy), choice in zip(sample["filtered_resps"], problem["choices"], strict=True):
            whole = local.codec.text_ids(problem["question"] + choice)
            asked = len(local.codec.text_ids(problem["question"]))
            [scores] = local.score_texts([whole])
            assert logprob == pytest.approx(sum(score or 0.0 for score in scores.logprobs[asked:]), abs=1e-3)
