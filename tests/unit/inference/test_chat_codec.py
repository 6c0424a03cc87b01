from __future__ import annotations

from itertools import pairwise

import pytest
from ratchet.inference.chat_codec import AnswerText
from ratchet.inference.generator import Decoding

from tests.support.tiny_model import build_tiny_tokenizer


@pytest.fixture(scope="module")
def text() -> AnswerText:
    return AnswerText(build_tiny_tokenizer())


def tokens(words: str) -> list[int]:
    return list(build_tiny_tokenizer()(words, add_special_tokens=False).input_ids)


def test_the_whole_text_has_no_special_tokens(text: AnswerText) -> None:
    assert text.whole(tokens("1+1=2<|im_end|>"), Decoding()) == "1+1=2"


def test_it_is_cut_at_the_first_stop_string(text: AnswerText) -> None:
    assert text.whole(tokens("a;b\n\nc"), Decoding(stop=("\n\n", ";"))) == "a"


def test_a_stop_string_across_tokens_is_found_when_complete(text: AnswerText) -> None:
    ids = tokens("answer is äé;")
    heard = [text.has_stop_string(ids[:length], Decoding(stop=("äé",))) for length in range(1, len(ids) + 1)]
    assert heard == [False] * (len(ids) - 2) + [True, True]


def test_without_stop_strings_nothing_stops(text: AnswerText) -> None:
    assert not text.has_stop_string(tokens("anything"), Decoding())


def test_the_settled_text_is_always_a_prefix_of_the_whole(text: AnswerText) -> None:
    ids, decoding = tokens("größe 12END of it"), Decoding(stop=("ENDE", "END of"))
    settled = [text.settled(ids[:length], decoding) for length in range(len(ids) + 1)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(settled))
    assert settled[-1] == text.whole(ids, decoding) == "größe 12"


def test_a_half_character_is_not_settled(text: AnswerText) -> None:
    ids = tokens("ä")
    assert [text.settled(ids[:length], Decoding()) for length in (1, 2)] == ["", "ä"]


def test_pieces_spell_every_token(text: AnswerText) -> None:
    assert text.pieces(tokens("7 is<|im_end|>")) == ["7", " is", "<|im_end|>"]
