"""Conversations as tokens: the one place where training, evaluation and serving apply a chat template.

A conversation is cut where the model starts to answer and after the token that ends its turn, and each piece is
tokenized separately. So the tokens before a trained answer are, by construction, those of the served prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

from ratchet.data.example import Message
from ratchet.errors import ChatTemplateError

Tokenizer = Any
"""A fast Hugging Face tokenizer with a chat template."""

_PROBE = (Message(role="user", content="Say yes."), Message(role="assistant", content="yes"))


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as token ids; ``trained[i]`` is True if ``ids[i]`` counts in the loss."""

    ids: list[int]
    trained: list[bool]


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    trained: bool


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The text up to the point where the model starts to answer."""
    return _apply(tokenizer, [messages], speak=True)[0]


def prompt_ids(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]]) -> list[list[int]]:
    """The tokens of each conversation up to the point where the model speaks: as before the answer in training."""
    pieces = _pieces(tokenizer, chats, _apply(tokenizer, chats, speak=True))
    encoded = iter(encode(tokenizer, [piece.text for row in pieces for piece in row]))
    return [[token for _ in row for token in next(encoded)] for row in pieces]


def render_training(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """A whole conversation, with the answers and the tokens that end them marked as trained."""
    return render_training_batch(tokenizer, [messages])[0]


def render_training_batch(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]]) -> list[Rendered]:
    """As ``render_training``, for many conversations with one call of the tokenizer.

    An answer is trained if its prompt has the same text in the whole conversation as when it is served. This must hold
    for the last answer; an earlier one that the template shortens (as some do with reasoning) is context only.
    """
    pieces = _training_pieces(tokenizer, chats)
    encoded = iter(encode(tokenizer, [piece.text for row in pieces for piece in row]))
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


def require_trainable(tokenizer: Tokenizer) -> None:
    """Raise ChatTemplateError if the template cannot render an answer for training as it will be served."""
    render_training(tokenizer, _PROBE)


@lru_cache(maxsize=8)
def end_of_turn(tokenizer: Tokenizer) -> str:
    """The special token that the template writes after an answer, from which the model learns to stop."""
    tail = _apply(tokenizer, [_PROBE])[0].rpartition(_PROBE[1].content)[2]
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


def _apply(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]], *, speak: bool = False) -> list[str]:
    if tokenizer.chat_template is None:
        raise ChatTemplateError(f"{_name(tokenizer)} has no chat template: add chat_template.jinja to its folder")
    turns = [[{"role": turn.role, "content": turn.content} for turn in messages] for messages in chats]
    if not turns:
        return []
    from jinja2 import TemplateError  # comes with tokenizers; this module is also imported without them

    try:
        return list(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=speak))
    except TemplateError as error:
        roles = dict.fromkeys(", ".join(turn.role for turn in messages) for messages in chats)
        raise ChatTemplateError(
            f"the chat template of {_name(tokenizer)} refuses turns of {' or of '.join(islice(roles, 3))}: {error}"
        ) from error


def _training_pieces(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]]) -> list[list[_Piece]]:
    if not all(messages and messages[-1].role == "assistant" for messages in chats):
        raise ChatTemplateError("a conversation to train on must end with an assistant turn")
    end = end_of_turn(tokenizer)
    texts = [text[: text.rfind(end) + len(end)] for text in _apply(tokenizer, chats)]
    pieces = _pieces(tokenizer, chats, texts)
    for messages, text, row in zip(chats, texts, pieces, strict=True):
        if not row or not row[-1].trained:
            raise ChatTemplateError(
                "the last answer does not appear unaltered between its prompt as served and one end token: "
                f"serving ends with {render_prompt(tokenizer, messages[:-1])[-80:]!r}, training with {text[-160:]!r}"
            )
    return pieces


def _pieces(tokenizer: Tokenizer, chats: Sequence[Sequence[Message]], texts: Sequence[str]) -> list[list[_Piece]]:
    """Cut each text around every answer that follows its prompt as served."""
    end = end_of_turn(tokenizer)
    answers = [
        (row, index)
        for row, messages in enumerate(chats)
        for index, message in enumerate(messages)
        if message.role == "assistant" and index > 0
    ]
    prompts = _apply(tokenizer, [chats[row][:index] for row, index in answers], speak=True)
    pieces: list[list[_Piece]] = [[] for _ in chats]
    cuts = [0] * len(chats)
    for (row, index), prompt in zip(answers, prompts, strict=True):
        text, cut = texts[row], cuts[row]
        stop = text.find(end, len(prompt)) + len(end)
        found = chats[row][index].content.strip() in text[len(prompt) : stop]
        if cut <= len(prompt) and stop > len(prompt) and found and text.startswith(prompt):
            pieces[row] += (_Piece(text[cut : len(prompt)], False), _Piece(text[len(prompt) : stop], True))
            cuts[row] = stop
    for row, text in enumerate(texts):
        if cuts[row] < len(text):
            pieces[row].append(_Piece(text[cuts[row] :], False))
    return pieces


def encode_text(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Token ids of a bare text as the tokenizer encodes one, with at most one begin token."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    ids = tuple(backend.encode(text, add_special_tokens=True).ids)
    bos = tokenizer.bos_token_id
    return ids[1:] if bos is not None and ids[:2] == (bos, bos) else ids


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of the texts, without any special tokens but those that they spell out."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
