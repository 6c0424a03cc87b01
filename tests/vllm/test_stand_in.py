"""The stand-in for vLLM, which the fast tests use, says what the real one says: fields, types and statuses."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ratchet.ports import free_port

from tests.support.server_processes import START_S, VLLM_COMMAND

Address = tuple[str, str, Path]

ASKED: dict[str, Any] = {
    "prompt": [5, 6, 7, 8],
    "max_tokens": 3,
    "temperature": 0.0,
    "top_p": 1.0,
    "seed": 0,
    "stop": [],
    "stop_token_ids": [1],
    "logprobs": 2,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "add_special_tokens": False,
    "stream": False,
}
REQUESTS = {
    "an answer": {},
    "likeliest tokens of the prompt": {"max_tokens": 1, "prompt_logprobs": 2},
    "an unknown model": {"model": "nobody"},
    "too long a prompt": {"prompt": [5] * 2_000},
    "an unknown format": {"response_format": {"type": "poem"}},
}


@pytest.fixture(scope="module")
def stand_in(addresses: list[Address]) -> Iterator[Address]:
    """A stand-in that serves what the first real one serves."""
    _, name, path = addresses[0]
    port = free_port()
    process = subprocess.Popen(VLLM_COMMAND.format(path=path, name=name, port=port).split())
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    yield url, name, path
    process.kill()
    process.wait()


def shape(value: Any) -> Any:
    """The types of a JSON value: of a list that of its last element, since vLLM begins some with null."""
    if isinstance(value, dict):
        return {
            ("<id>" if key.removeprefix("token_id:").isdigit() else key): shape(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [shape(value[-1])] if value else []
    return type(value).__name__


def missing(stand_in: Any, real: Any, place: str = "") -> list[str]:
    """Where the stand-in says what the real one does not."""
    if isinstance(stand_in, dict) and isinstance(real, dict):
        absent = [f"{place}.{key}" for key in stand_in if key not in real]
        return absent + [
            each for key in stand_in if key in real for each in missing(stand_in[key], real[key], f"{place}.{key}")
        ]
    if isinstance(stand_in, list) and isinstance(real, list):
        return missing(stand_in[0], real[0], f"{place}[]") if stand_in and real else []
    return [] if stand_in == real or {stand_in, real} <= {"int", "float"} else [f"{place}: {stand_in}, really {real}"]


@pytest.mark.parametrize("request_name", REQUESTS)
def test_answers_and_refusals_have_the_same_fields(
    addresses: list[Address], stand_in: Address, request_name: str
) -> None:
    responses = [
        httpx.post(f"{url}/v1/completions", json={"model": name, **ASKED, **REQUESTS[request_name]}, timeout=START_S)
        for url, name, _ in (stand_in, addresses[0])
    ]
    assert responses[0].status_code == responses[1].status_code, responses[1].text
    assert missing(shape(responses[0].json()), shape(responses[1].json())) == []


def test_streams_have_the_same_fields(addresses: list[Address], stand_in: Address) -> None:
    told = []
    for url, name, _ in (stand_in, addresses[0]):
        asked = {"model": name, **ASKED, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=asked, timeout=START_S) as response:
            lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        told.append([json.loads(line) for line in lines[:-1]])
    assert missing(shape(told[0]), shape(told[1])) == []
    assert told[0][-1]["choices"][0]["finish_reason"] == told[1][-1]["choices"][0]["finish_reason"]
