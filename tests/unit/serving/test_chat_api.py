"""What a request asks for, within the limits that are set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.inference.generator import finite
from ratchet.lines import to_json_line
from ratchet.serving.chat_api import MAX_MESSAGES, ChatRequest
from ratchet.serving.completions_api import CompletionRequest
from ratchet.serving.http_errors import ApiError
from ratchet.serving.request_fields import DEFAULT_NEW_TOKENS, IGNORED, UNSUPPORTED
from ratchet.settings.serving import ServingSettings


def asked(turns: int = 1, max_tokens: int | None = None) -> ChatRequest:
    messages = [{"role": "user", "content": "1+1="}] * turns
    return ChatRequest.model_validate({"model": "ratchet", "messages": messages, "max_tokens": max_tokens})


def test_an_answer_without_a_limit_has_the_default_one_within_the_largest() -> None:
    assert asked().decoding(ServingSettings()).max_new_tokens == DEFAULT_NEW_TOKENS
    assert asked().decoding(ServingSettings(max_new_tokens=8)).max_new_tokens == 8


def test_requests_have_limits() -> None:
    assert asked(max_tokens=9).decoding(ServingSettings(max_new_tokens=8)).max_new_tokens == 8
    assert asked(turns=MAX_MESSAGES).decoding(ServingSettings())
    with pytest.raises(ApiError, match=f"at most {MAX_MESSAGES} messages"):
        asked(turns=MAX_MESSAGES + 1).decoding(ServingSettings())


def test_the_page_about_serving_names_every_field() -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    fields = {*ChatRequest.model_fields, *CompletionRequest.model_fields, *UNSUPPORTED, *IGNORED}
    assert {field for field in fields if f"`{field}`" not in page} == set()


def test_a_log_probability_of_minus_infinity_is_a_number_in_json() -> None:
    told = [finite(value) for value in (-0.5, float("-inf"), float("nan"), None)]
    assert json.loads(to_json_line(told)) == [-0.5, -9999.0, -9999.0, -9999.0]
