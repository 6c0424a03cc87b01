"""Conversations as tokens: the one place where training, evaluation and serving apply a chat template.

A conversation is cut where the model starts to answer and after the token that ends its turn, and each piece is
tokenized separately. So the tokens before a trained answer are, by construction, those of the served prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ratchet.data.example import Message
from ratchet.errors import ChatTemplateError
from ratchet.inference.jinja_template import JinjaTemplate, Turn
from ratchet.inference.model_folder import read_json
from ratchet.inference.piece_encoding import PieceEncoder, Pieces

Tokenizer = Any
"""A fast Hugging Face tokenizer with a chat template."""

Tools = Sequence[dict[str, Any]]
"""The functions that a model may call in a conversation, as OpenAI describes them."""

DAY = "chat_template_day"
"""Field of ``tokenizer_config.json`` with the day that a template is told, which every checkpoint inherits."""

_FALLBACK_DAY = "2024-07-26"
"""For folders without it: the day that Llama 3.1's template names where it is told none."""

_QUESTION, _ANSWER = Message(role="user", content="Say yes."), Message(role="assistant", content="yes")
_SYSTEM = Message(role="system", content="Be brief, Ada.")
_TOOL: dict[str, Any] = {
    "name": "rainfall",
    "description": "Rain of today.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_CALL = {"id": "call00001", "type": "function", "function": {"name": "rainfall", "arguments": {"city": "Oslo"}}}
_TOOL_TURNS = (
    _QUESTION,
    Message(role="assistant", content="", tool_calls=(_CALL,)),
    Message(role="tool", content="12 mm", tool_call_id="call00001", name="rainfall"),
    _ANSWER,
)
_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>\s*")
_OWN_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>\n*(?=.*\S)", re.DOTALL)
_ENDS_WITH_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*\Z")


@dataclass(frozen=True)
class Rendered:
    """A conversation as token ids; ``trained[i]`` is True if ``ids[i]`` counts in the loss."""

    ids: list[int]
    trained: list[bool]


@dataclass(frozen=True, slots=True)
class _Chat:
    """A conversation as the template reads it. Control tokens that a turn spells hold the marker."""

    turns: list[Turn]
    trained: list[bool]
    """Whether each turn may be trained on."""
    tools: list[Turn] | None
    marker: str


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    trained: bool


def chat_template(tokenizer: Tokenizer, variables: Mapping[str, Any] | None = None) -> ChatTemplate:
    """The template of a tokenizer, with the variables of ``profile.template_variables``."""
    text = tokenizer.chat_template
    if isinstance(text, dict):
        text = text.get("default")
    if text is None:
        raise ChatTemplateError(f"{_name(tokenizer)} has no chat template: add chat_template.jinja to its folder")
    return _chat_template(tokenizer, text, json.dumps(dict(variables or {}), sort_keys=True))


@lru_cache(maxsize=32)
def _chat_template(tokenizer: Tokenizer, text: str, variables: str) -> ChatTemplate:
    return ChatTemplate(tokenizer, text, json.loads(variables))


def to_last_answer(messages: Sequence[Message]) -> Sequence[Message]:
    """The turns up to the last answer that is trained; none if there is no such answer."""
    last = next((index for index, turn in reversed(list(enumerate(messages))) if _is_trained(turn)), -1)
    return messages[: last + 1]


def _is_trained(turn: Message) -> bool:
    return turn.role == "assistant" and turn.train is not False


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens on which generation ends: the end of a turn, the tokenizer's end-of-text, and those of the model's
    ``generation_config.json``, such as Llama 3's end of a tool call."""
    ids = {tokenizer.convert_tokens_to_ids(chat_template(tokenizer).end_of_turn), tokenizer.eos_token_id}
    return tuple(sorted({token for token in ids if token is not None} | _own_stop_ids(tokenizer)))


def _own_stop_ids(tokenizer: Tokenizer) -> set[int]:
    file = Path(tokenizer.name_or_path) / "generation_config.json"
    if not tokenizer.name_or_path or not file.is_file():
        return set()
    stated = read_json(file).get("eos_token_id")
    listed = stated if isinstance(stated, list) else [stated]
    return {token for token in listed if isinstance(token, int)}


class ChatTemplate:
    """One tokenizer's template with fixed variables. Use ``chat_template`` to get one.

    Methods raise ChatTemplateError for a conversation that cannot be rendered, and for a template that is unfit.
    """

    def __init__(self, tokenizer: Tokenizer, text: str, variables: Mapping[str, Any]):
        day = date.fromisoformat(tokenizer.init_kwargs.get(DAY) or _FALLBACK_DAY)
        self._tokenizer = tokenizer
        self._template = JinjaTemplate(text, {**tokenizer.special_tokens_map, **variables}, day, _name(tokenizer))

    def prompt_text(self, messages: Sequence[Message], tools: Tools | None = None) -> str:
        """The text up to the point where the model starts to answer."""
        chat = self._chat(messages, tools)
        text = self._text(chat, speak=True)
        return text.replace(chat.marker, "") if chat.marker else text

    def prompt_ids(
        self,
        chats: Sequence[Sequence[Message]],
        tools: Sequence[Tools | None] | None = None,
        continue_last: bool = False,
    ) -> list[list[int]]:
        """The tokens of each conversation up to the point where the model speaks: as before the answer in training.

        With ``continue_last``, a closing assistant turn is the beginning of the answer, which the model continues.
        """
        rows = []
        for messages, own_tools in zip(chats, tools or [None] * len(chats), strict=True):
            chat = self._chat(messages, own_tools)
            begun = continue_last and chat.turns[-1]["role"] == "assistant"
            asked = chat if not begun else _first(chat, len(chat.turns) - 1)
            texts = [piece.text for piece in self._pieces(asked, self._text(asked, speak=True))]
            if begun:
                texts += self._reply(chat.turns[-1]["content"])
            rows.append(Pieces(texts, chat.marker))
        return [[token for piece in row for token in piece] for row in self._encoder.encode(rows)]

    def training_ids(self, messages: Sequence[Message], tools: Tools | None = None) -> Rendered:
        """A whole conversation, with the answers and the tokens that end them marked as trained."""
        (rendered,) = self.training_rows([messages], [tools])
        if isinstance(rendered, ChatTemplateError):
            raise rendered
        return rendered

    def training_rows(
        self, chats: Sequence[Sequence[Message]], tools: Sequence[Tools | None] | None = None
    ) -> list[Rendered | ChatTemplateError]:
        """As ``training_ids``, for many conversations with one call of the tokenizer, or why one cannot be rendered.

        An answer is trained if its prompt has the same text in the whole conversation as when it is served. This must
        hold for the last answer, which is trained exactly as it is given, also where the template strips white space.
        An earlier one that the template shortens (as some do with reasoning) is context only. So is an empty think
        block that the template writes before an answer that has none.
        """
        self._require_frame()
        found: list[Rendered | ChatTemplateError | tuple[list[_Piece], str]] = []
        for messages, own_tools in zip(chats, tools or [None] * len(chats), strict=True):
            try:
                found.append(self._training_pieces(messages, own_tools))
            except ChatTemplateError as error:
                found.append(error)
        ready = [row for row in found if isinstance(row, tuple)]
        encoded = iter(self._encoded(ready))
        return [next(encoded) if isinstance(row, tuple) else row for row in found]

    def reply_ids(self, answers: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of each answer after its prompt, to the end of the turn, as they are in training."""
        before = self._text(self._chat([_QUESTION]), speak=True)
        rows = []
        for answer in answers:
            content, marker = self._encoder.protect(answer)
            *block, text = self._reply(content)
            rows.append(Pieces([*block, text + self._frame[1] + self.end_of_turn], marker, before))
        return [tuple(token for piece in row for token in piece) for row in self._encoder.encode(rows)]

    def require_trainable(self) -> None:
        """Raise ChatTemplateError if the template cannot render an answer for training as it will be served."""
        rendered = self.training_ids([_QUESTION, _ANSWER])
        if self._encoder.adds_space:
            chat = self._chat([_QUESTION, _ANSWER, _QUESTION, _ANSWER])
            text = self._ended(self._text(chat))
            if self.training_ids([_QUESTION, _ANSWER] * 2).ids != self._encoder.whole(text):
                raise ChatTemplateError(
                    f"the tokenizer of {_name(self._tokenizer)} cuts {text!r} otherwise where an answer begins than in "
                    "the whole text: a model that is trained on it would be served other tokens. Use a template that "
                    "begins and ends answers with special tokens"
                )
        assert rendered.trained[-1], "an answer's end is trained"

    @cached_property
    def end_of_turn(self) -> str:
        """The special token that the template writes after an answer, from which the model learns to stop."""
        text = self._template.render([_turn(_QUESTION), _turn(_ANSWER)], None, speak=False)
        tail = text.rpartition(_ANSWER.content)[2]
        found = [(tail.index(token), token) for token in self._tokenizer.get_added_vocab() if token in tail]
        if not found:
            raise ChatTemplateError(
                f"the chat template of {_name(self._tokenizer)} ends an answer with {tail!r}, which holds no special "
                "token: the model could never learn to stop. Use a template that writes one"
            )
        return min(found)[1]

    @cached_property
    def takes_system(self) -> bool:
        """Whether a system turn appears in the text. Where it is refused or dropped, it is put before the question."""
        try:
            text = self._template.render([_turn(_SYSTEM), _turn(_QUESTION)], None, speak=True)
        except ChatTemplateError:
            return False
        return _SYSTEM.content in text

    @cached_property
    def takes_tools(self) -> bool:
        """Whether tools, their calls and their answers appear in the text."""
        turns = [_turn(turn) for turn in _TOOL_TURNS]
        try:
            plain = self._template.render(turns, None, speak=False)
            described = self._template.render(turns, [{"type": "function", "function": _TOOL}], speak=False)
        except ChatTemplateError:
            return False
        return all(text in plain for text in ("rainfall", "Oslo", "12 mm")) and _TOOL["description"] in described

    @property
    def opens_with_thought(self) -> bool:
        """Whether the template writes an empty think block before an answer that has none."""
        return bool(self._thought)

    @cached_property
    def _encoder(self) -> PieceEncoder:
        return PieceEncoder(self._tokenizer, self.end_of_turn)

    @cached_property
    def _frame(self) -> tuple[str, str]:
        """What the template writes between a prompt and its answer, and between the answer and the end of the turn."""
        prompt = self._text(self._chat([_QUESTION]), speak=True)
        if _QUESTION.content not in prompt:
            raise ChatTemplateError(f"the chat template of {_name(self._tokenizer)} drops or alters questions")
        text = self._ended(self._text(self._chat([_QUESTION, _ANSWER])))
        before, found, after = text[len(prompt) :].removesuffix(self.end_of_turn).rpartition(_ANSWER.content)
        if not text.startswith(prompt) or not found:
            raise self._unlike(prompt, text)
        return before, after

    @cached_property
    def _thought(self) -> str:
        """The empty think block before an answer, if the template writes one."""
        block = _EMPTY_THOUGHT.match(self._frame[0])
        return block[0] if block else ""

    @cached_property
    def _is_thought_asked(self) -> bool:
        """Whether a prompt ends with an empty think block, as where reasoning is switched off."""
        return _ENDS_WITH_EMPTY_THOUGHT.search(self._text(self._chat([_QUESTION]), speak=True)) is not None

    def _require_frame(self) -> None:
        _ = self._frame

    @cached_property
    def _bos(self) -> str:
        """The beginning-of-text token, where the tokenizer adds it to a text and the template does not write it."""
        token = self._tokenizer.bos_token
        if token is None or self._tokenizer("a").input_ids[:1] != [self._tokenizer.bos_token_id]:
            return ""
        return "" if self._template.render([_turn(_QUESTION)], None, speak=True).startswith(token) else str(token)

    def _chat(self, messages: Sequence[Message], tools: Tools | None = None) -> _Chat:
        turns, trained = [_turn(message) for message in messages], [message.train is not False for message in messages]
        if (tools or any(m.role == "tool" or m.tool_calls for m in messages)) and not self.takes_tools:
            raise ChatTemplateError(f"the chat template of {_name(self._tokenizer)} has no place for tools")
        asked = len(turns) > 1 and turns[0]["role"] == "system" and turns[1]["role"] == "user"
        if asked and not self.takes_system:
            texts = [turn["content"] for turn in turns[:2] if turn["content"]]
            turns, trained = [{**turns[1], "content": "\n\n".join(texts)}, *turns[2:]], trained[1:]
        (turns, told), marker = self._encoder.protect((turns, list(tools) if tools else None))
        return _Chat(turns, trained, told, marker)

    def _text(self, chat: _Chat, *, speak: bool = False) -> str:
        return self._bos + self._template.render(chat.turns, chat.tools, speak=speak)

    def _ended(self, text: str) -> str:
        """The text up to the last end of a turn."""
        return text[: text.rfind(self.end_of_turn) + len(self.end_of_turn)]

    def _training_pieces(self, messages: Sequence[Message], tools: Tools | None) -> tuple[list[_Piece], str]:
        if not messages or not _is_trained(messages[-1]):
            raise ChatTemplateError("a conversation to train on must end with an assistant turn that is trained")
        chat = self._chat(messages, tools)
        text = self._ended(self._text(chat))
        pieces = self._pieces(chat, text, closed=True)
        if not pieces or not pieces[-1].trained:
            raise self._unlike(self._text(_first(chat, len(chat.turns) - 1), speak=True), text)
        return pieces, chat.marker

    def _pieces(self, chat: _Chat, text: str, *, closed: bool = False) -> list[_Piece]:
        """Cut the text around every answer that follows its prompt as served; ``closed``: it ends with one."""
        pieces: list[_Piece] = []
        cut = 0
        for index, turn in enumerate(chat.turns):
            if turn["role"] != "assistant" or index == 0:
                continue
            prompt = self._text(_first(chat, index), speak=True)
            stop = text.find(self.end_of_turn, len(prompt)) + len(self.end_of_turn)
            answer = text[len(prompt) : stop]
            if cut > len(prompt) or stop <= len(prompt) or not text.startswith(prompt):
                continue
            if (exact := self._exact(turn, answer, closing=closed and index == len(chat.turns) - 1)) is None:
                continue
            pieces.append(_Piece(text[cut : len(prompt)], False))
            if self._thought and exact.startswith(self._thought) and not _is_thought(turn["content"]):
                pieces.append(_Piece(self._thought, False))
                exact = exact.removeprefix(self._thought)
            pieces.append(_Piece(exact, chat.trained[index] and _is_whole(self._bare(turn["content"]), exact)))
            cut = stop
        if cut < len(text):
            pieces.append(_Piece(text[cut:], False))
        return pieces

    def _exact(self, turn: Turn, answer: str, *, closing: bool) -> str | None:
        """What the model is to write: the answer as the template writes it, and a closing one with the white space that
        it strips. None if the answer is not in it."""
        content = self._bare(str(turn["content"]))
        if content in answer:
            return answer
        *block, reply = self._reply(content)
        whole = "".join((*block, reply, self._frame[1], self.end_of_turn))
        if closing and not turn.get("tool_calls") and _squeezed(whole) == _squeezed(answer):
            return whole
        return answer if content.strip() in answer else None

    def _reply(self, content: str) -> list[str]:
        """An answer after its prompt, without its end; an empty think block before it is a piece of its own."""
        before, content = self._frame[0].removeprefix(self._thought), self._bare(content)
        return [self._thought, before + content] if self._thought and not _is_thought(content) else [before + content]

    def _bare(self, content: str) -> str:
        """An answer without an empty think block of its own where its prompt ends with one."""
        return (
            _OWN_EMPTY_THOUGHT.sub("", content, count=1) if self._is_thought_asked and _is_thought(content) else content
        )

    def _encoded(self, rows: Sequence[tuple[list[_Piece], str]]) -> list[Rendered | ChatTemplateError]:
        pieces = [Pieces([piece.text for piece in row], marker) for row, marker in rows]
        try:
            encoded = self._encoder.encode(pieces)
        except ChatTemplateError as error:
            if len(rows) == 1:
                return [error]
            return [rendered for row in rows for rendered in self._encoded([row])]
        return [_rendered(row, ids) for (row, _), ids in zip(rows, encoded, strict=True)]

    def _unlike(self, prompt: str, text: str) -> ChatTemplateError:
        return ChatTemplateError(
            f"the chat template of {_name(self._tokenizer)} alters the last answer, or writes it elsewhere than "
            f"between its prompt as served and one end token: serving ends with {prompt[-80:]!r}, training with "
            f"{text[-160:]!r}"
        )


def _rendered(pieces: Sequence[_Piece], encoded: Sequence[Sequence[int]]) -> Rendered:
    ids: list[int] = []
    trained: list[bool] = []
    for piece, tokens in zip(pieces, encoded, strict=True):
        ids += tokens
        trained += [piece.trained] * len(tokens)
    return Rendered(ids, trained)


def _turn(message: Message) -> Turn:
    """A turn as templates read it: the arguments of a call are a dict, where OpenAI writes JSON text."""
    turn: Turn = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        turn["name"] = message.name
    return turn


def _call(call: Mapping[str, Any]) -> Turn:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


def _first(chat: _Chat, turns: int) -> _Chat:
    return _Chat(chat.turns[:turns], chat.trained[:turns], chat.tools, chat.marker)


def _is_thought(content: str) -> bool:
    return content.lstrip().startswith("<think>")


def _is_whole(content: str, written: str) -> bool:
    """Whether the answer was written with no more than its last white space lost."""
    return content.rstrip() in written


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _name(tokenizer: Tokenizer) -> str:
    return tokenizer.name_or_path or "this tokenizer"
