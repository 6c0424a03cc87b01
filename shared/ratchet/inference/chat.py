"""Conversations as tokens: the one place where training, evaluation and serving apply a chat template.

A conversation is cut where the model starts to speak and after the token that ends its turn; each piece is
tokenized by itself. So the tokens before a trained answer are, by construction, those of the served prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ratchet.data.example import Message
from ratchet.errors import ChatTemplateError

Tokenizer = Any
"""A fast Hugging Face tokenizer with a chat template."""

_PROBE = (Message(role="user", content="Say yes."), Message(role="assistant", content="yes"))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids; ``trained[i]`` says whether the loss counts ``ids[i]``."""

    ids: list[int]
    trained: list[bool]

    @property
    def answer_ids(self) -> list[int]:
        """The tokens of the closing answer, its end token included."""
        start = len(self.ids)
        while start and self.trained[start - 1]:
            start -= 1
        return self.ids[start:]


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    trained: bool


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The text up to the point where the model speaks."""
    return _apply(tokenizer, messages, speak=True)


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The tokens up to the point where the model speaks: those that stand before the answer in training."""
    text = render_prompt(tokenizer, messages)
    pieces = [*_pieces(tokenizer, messages, text)]
    return [token for ids in _encode(tokenizer, [piece.text for piece in pieces]) for token in ids]


def render_training(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """A whole conversation, with the answers and the tokens that end them marked as trained."""
    return render_training_batch(tokenizer, [messages])[0]


def render_training_batch(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]]) -> list[Rendered]:
    """``render_training`` of many conversations, with one call of the tokenizer.

    Every answer is trained whose prompt reads in the whole conversation as it reads when served. The closing
    one must; an earlier one that the template abridges (as some do with reasoning) is context only.
    """
    pieces = [[*_training_pieces(tokenizer, messages)] for messages in chats]
    encoded = iter(_encode(tokenizer, [piece.text for row in pieces for piece in row]))
    rendered = []
    for row in pieces:
        ids: list[int] = []
        trained: list[bool] = []
        for piece in row:
            tokens = next(encoded)
            ids += tokens
            trained += [piece.trained] * len(tokens)
        rendered.append(Rendered(ids, trained))
    return rendered


@lru_cache(maxsize=8)
def end_of_turn(tokenizer: Tokenizer) -> str:
    """The special token that the template writes after an answer: what the model learns to say to stop."""
    tail = _apply(tokenizer, _PROBE).rpartition(_PROBE[1].content)[2]
    found = [(tail.index(token), token) for token in tokenizer.get_added_vocab() if token in tail]
    if not found:
        raise ChatTemplateError(
            f"the chat template of {_name(tokenizer)} ends an answer with {tail!r}, which holds no special "
            "token: the model could never learn to stop. Use a template that writes one"
        )
    return min(found)[1]


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens on which generation ends: the end of a turn and the tokenizer's own end-of-text."""
    ids = {tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer)), tokenizer.eos_token_id}
    return tuple(sorted(token for token in ids if token is not None))


def _name(tokenizer: Tokenizer) -> str:
    return tokenizer.name_or_path or "this tokenizer"


def _apply(tokenizer: Tokenizer, messages: Sequence[Message], *, speak: bool = False) -> str:
    if tokenizer.chat_template is None:
        raise ChatTemplateError(
            f"{_name(tokenizer)} has no chat template: add chat_template.jinja to its folder"
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=speak))


def _training_pieces(tokenizer: Tokenizer, messages: Sequence[Message]) -> Iterator[_Piece]:
    if not messages or messages[-1].role != "assistant":
        raise ChatTemplateError("a conversation to train on must end with an assistant turn")
    text = _apply(tokenizer, messages)
    last_end = text.rfind(end_of_turn(tokenizer)) + len(end_of_turn(tokenizer))
    pieces = [*_pieces(tokenizer, messages, text[:last_end])]
    if not pieces[-1].trained:
        raise ChatTemplateError(
            "the closing answer does not stand, unaltered, between its prompt as served and one end token: "
            f"serving says {render_prompt(tokenizer, messages[:-1])[-80:]!r}, training has {text[-160:]!r}"
        )
    yield from pieces


def _pieces(tokenizer: Tokenizer, messages: Sequence[Message], text: str) -> Iterator[_Piece]:
    """Cut ``text`` around every answer whose prompt, as served, is what stands before it."""
    end = end_of_turn(tokenizer)
    cut = 0
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = render_prompt(tokenizer, messages[:index])
        if not text.startswith(prompt) or len(prompt) < cut:
            continue
        stop = text.find(end, len(prompt)) + len(end)
        if stop < len(end) or message.content.strip() not in text[len(prompt) : stop]:
            continue
        yield _Piece(text[cut : len(prompt)], trained=False)
        yield _Piece(text[len(prompt) : stop], trained=True)
        cut = stop
    if cut < len(text):
        yield _Piece(text[cut:], trained=False)


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, add_special_tokens=False).input_ids) if texts else []
