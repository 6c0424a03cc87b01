from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.data.example import Example, Message
from ratchet.errors import ChatTemplateError
from ratchet.inference.chat_template import chat_template, stop_ids
from ratchet.inference.tiny import build_tiny_tokenizer

TOKENIZER = build_tiny_tokenizer()
TALK = (
    Message(role="system", content="be brief"),
    Message(role="user", content="1?"),
    Message(role="assistant", content="\n one"),
    Message(role="user", content="2?"),
    Message(role="assistant", content="two"),
)
_REASONING_DROPPED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('#')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_prompt_ends_where_the_answer_starts() -> None:
    assert chat_template(TOKENIZER).prompt_text(TALK[:2]) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("answer", [2, 4])
def test_the_tokens_before_an_answer_are_those_of_its_prompt_when_served(answer: int) -> None:
    (served,) = chat_template(TOKENIZER).prompt_ids([TALK[:answer]])
    rendered = chat_template(TOKENIZER).training_ids(TALK)
    assert rendered.ids[: len(served)] == served
    assert rendered.trained[len(served)]
    assert not rendered.trained[len(served) - 1]


def test_the_closing_answer_is_given_with_its_end() -> None:
    (served,) = chat_template(TOKENIZER).prompt_ids([TALK[:4]])
    rendered = chat_template(TOKENIZER).training_ids(TALK)
    assert all(rendered.trained[len(served) :])
    assert TOKENIZER.decode(rendered.ids[len(served) :]) == "two<|im_end|>"


def test_a_batch_equals_its_single_encodings() -> None:
    chats = [TALK, TALK[:3], Example.ask("a", "b").messages]
    assert chat_template(TOKENIZER).training_rows(chats) == [
        chat_template(TOKENIZER).training_ids(chat) for chat in chats
    ]
    assert chat_template(TOKENIZER).training_rows([]) == []
    prompts = [TALK[:2], TALK[:4], TALK[1:2]]
    assert chat_template(TOKENIZER).prompt_ids(prompts) == [
        chat_template(TOKENIZER).prompt_ids([prompt])[0] for prompt in prompts
    ]
    assert chat_template(TOKENIZER).prompt_ids([]) == []


def test_a_turn_that_the_template_abridges_is_context_and_the_last_is_trained() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = _REASONING_DROPPED
    talk = (*TALK[:2], Message(role="assistant", content="why#one"), TALK[3], TALK[4])
    rendered = chat_template(tokenizer).training_ids(talk)
    trained = [token for token, mark in zip(rendered.ids, rendered.trained, strict=True) if mark]
    assert tokenizer.decode(trained) == "two<|im_end|>"
    assert "why" not in tokenizer.decode(rendered.ids)


def test_an_empty_answer_still_ends() -> None:
    rendered = chat_template(TOKENIZER).training_ids(Example.ask("a", "").messages)
    trained = [token for token, mark in zip(rendered.ids, rendered.trained, strict=True) if mark]
    assert TOKENIZER.decode(trained) == "<|im_end|>"


def test_generation_stops_where_training_ends_an_answer() -> None:
    assert chat_template(TOKENIZER).end_of_turn == "<|im_end|>"
    assert stop_ids(TOKENIZER) == (TOKENIZER.eos_token_id,)
    other = build_tiny_tokenizer()
    other.eos_token = "<|endoftext|>"
    assert set(stop_ids(other)) == {TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}


def test_truncation_and_padding_that_a_tokenizer_file_asks_for_are_not_applied() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=99)
    assert chat_template(tokenizer).training_ids(TALK) == chat_template(TOKENIZER).training_ids(TALK)


def test_a_conversation_without_a_closing_answer_cannot_be_trained_on() -> None:
    with pytest.raises(ChatTemplateError, match="assistant"):
        chat_template(TOKENIZER).training_ids(TALK[:4])


def test_a_missing_template_is_an_error_that_names_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tokenizer.chat_template = None
    tokenizer.name_or_path = "nameless"
    with pytest.raises(ChatTemplateError, match="nameless has no chat template"):
        chat_template(tokenizer).prompt_text(TALK[:2])
