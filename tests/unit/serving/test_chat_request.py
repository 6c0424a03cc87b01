"""What a request asks for, within the limits that are set."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.serving.chat_api import IGNORED, UNSUPPORTED, ChatRequest
from ratchet.serving.http_errors import ApiError
from ratchet.settings.serving import ServingSettings


def asked(turns: int = 1, max_tokens: int | None = None) -> ChatRequest:
    messages = [{"role": "user", "content": "1+1="}] * turns
    return ChatRequest.model_validate({"model": "ratchet", "messages": messages, "max_tokens": max_tokens})


def test_the_length_of_an_answer_that_no_one_limits_is_set() -> None:
    lengths = [asked().decoding(ServingSettings(default_new_tokens=tokens)).max_new_tokens for tokens in (7, 70)]
    assert lengths == [7, 70]


@pytest.mark.parametrize(
    ("request_", "changed", "says"),
    [
        (asked(turns=3), {"max_messages": 2}, "at most 2 messages"),
        (asked(max_tokens=9), {"max_new_tokens": 8}, "max_tokens is at most 8"),
    ],
    ids=["max_messages", "max_new_tokens"],
)
def test_what_a_client_may_ask_for_is_set(request_: ChatRequest, changed: dict[str, int], says: str) -> None:
    assert request_.decoding(ServingSettings())
    with pytest.raises(ApiError, match=says):
        request_.decoding(ServingSettings.model_validate(changed))


def test_the_page_about_serving_names_every_field() -> None:
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    fields = {*ChatRequest.model_fields, *UNSUPPORTED, *IGNORED}
    assert {field for field in fields if f"`{field}`" not in page} == set()
