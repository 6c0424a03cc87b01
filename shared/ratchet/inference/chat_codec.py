"""ChatCodec encodes chats as token ids and decodes answers to text, with one checkpoint's tokenizer.

It serves models in this process and models behind vLLM alike. AnswerText decodes the text of an answer, whole or
unfinished.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet.errors import ChatTemplateError, GenerationError
from ratchet.inference.chat_template import Tokenizer, Tools, chat_template, stop_ids
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.inference.piece_encoding import encode_text
from ratchet.inference.prefill import Scored
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.sampling import Answer, Prompt

TOKENS_PER_CHARACTER = 4
"""A UTF-8 character takes at most four byte tokens."""


class ChatCodec:
    """One checkpoint's tokenizer with a prompt format. ``context`` limits the tokens of prompt and answer together."""

    def __init__(self, tokenizer: Tokenizer, prompt_format: PromptFormat, context: int, weights: str):
        self.text = AnswerText(tokenizer)
        self.end_ids = frozenset(stop_ids(tokenizer))
        self.processors = prompt_format.profile.logits_processors(tokenizer)
        self.context = context
        self.weights = weights
        self._tokenizer = tokenizer
        self._prompt_format = prompt_format
        self._template = chat_template(tokenizer, prompt_format.template_variables)

    def prompt(
        self,
        chat: Chat,
        decoding: Decoding,
        occurrence: int = 0,
        *,
        tools: Tools | None = None,
        variables: Mapping[str, Any] | None = None,
        continue_last: bool = False,
    ) -> Prompt:
        """A chat as tokens, in the prompt format, with ``max_new_tokens`` reduced to what the context leaves.

        ``variables`` are the template's, before those of the prompt format. With ``continue_last`` a closing assistant
        turn is the beginning of the answer. Raises GenerationError if the context leaves nothing, and ChatTemplateError
        for a chat that the template refuses.
        """
        template = self._template
        if variables:
            template = chat_template(self._tokenizer, {**self._prompt_format.template_variables, **variables})
        formatted = self._prompt_format.apply_to_prompt(chat)
        (token_ids,) = template.prompt_ids([formatted], [tools], continue_last)
        return self._prompt(chat, token_ids, self._prompt_format.apply_to_decoding(decoding), occurrence)

    def prompts(
        self, chats: Sequence[Chat], decoding: Decoding, drafts: Sequence[Reply | None] | None = None
    ) -> list[Prompt]:
        """Prompts, numbered among equal ones, with their drafts if these fit the context."""
        rows = self._token_ids(chats)
        decoding = self._prompt_format.apply_to_decoding(decoding)
        replies = self._replies([draft or () for draft in drafts]) if drafts else [()] * len(rows)
        return [
            self._prompt(chat, row, decoding, occurrence, draft)
            for chat, row, occurrence, draft in zip(chats, rows, occurrences(rows), replies, strict=True)
        ]

    def reads_variable(self, name: str) -> bool:
        """Whether the text of the chat template names this variable."""
        return re.search(rf"\b{re.escape(name)}\b", str(self._tokenizer.chat_template)) is not None

    def refusals(self, chats: Sequence[Chat]) -> dict[int, str]:
        """Why a chat cannot be asked, by its index: the template refuses it, or the context leaves no room for an
        answer. Empty if all can be."""
        try:
            rows = self._token_ids(chats)
        except ChatTemplateError as error:
            if len(chats) == 1:
                return {0: str(error)}
            return {index: why for index, chat in enumerate(chats) for why in self.refusals([chat]).values()}
        return {
            index: self._no_room(len(ids), chats[index][-1].content)
            for index, ids in enumerate(rows)
            if len(ids) >= self.context
        }

    def text_ids(self, text: str) -> tuple[int, ...]:
        """A bare text as tokens, without template or profile, with the special tokens that the tokenizer puts around a
        text; a begin token that the text spells out itself is not doubled."""
        return encode_text(self._tokenizer, text)

    def require_known(self, token_ids: Sequence[int]) -> None:
        """Raise GenerationError for an id that is no token of this model."""
        known = len(self._tokenizer)
        wrong = next((token for token in token_ids if not 0 <= token < known), None)
        if wrong is not None:
            raise GenerationError(f"{wrong} is no token id of this model, whose ids are below {known}.")

    def text_prompt(self, token_ids: Sequence[int], decoding: Decoding, occurrence: int = 0) -> Prompt:
        """A prompt of exactly these tokens, which the model continues. Raises GenerationError as ``prompt`` does."""
        return self._fit(token_ids, decoding, occurrence, self.text.whole(token_ids, Decoding()))

    def scored(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[Scored]:
        """Prompts, each with the answer to score after it; the end token is appended to a text."""
        return list(zip(self._token_ids(chats), self._replies(answers), strict=True))

    def generation(self, prompt: Prompt, answer: Answer) -> Generation:
        return self._generation(prompt, answer, self.text.whole(answer.token_ids, prompt.decoding))

    def generations(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Generation]:
        """As ``generation``, for many answers with one call of the tokenizer."""
        texts = self.text.wholes([a.token_ids for a in answers], [prompt.decoding for prompt in prompts])
        return [self._generation(*row) for row in zip(prompts, answers, texts, strict=True)]

    def _generation(self, prompt: Prompt, answer: Answer, text: str) -> Generation:
        return Generation(
            text=text,
            token_ids=tuple(answer.token_ids),
            token_logprobs=tuple(answer.logprobs),
            finish_reason="stop" if answer.stopped else "length",
            prompt_tokens=len(prompt.token_ids),
            latency_s=answer.latency_s,
            weights=self.weights,
            draft_logprobs=tuple(answer.draft_logprobs),
            top_logprobs=tuple(answer.top_logprobs),
        )

    def _token_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        return self._template.prompt_ids([self._prompt_format.apply_to_prompt(chat) for chat in chats])

    def _replies(self, answers: Sequence[Reply]) -> list[tuple[int, ...]]:
        texts = [answer for answer in answers if isinstance(answer, str)]
        encoded = iter(self._template.reply_ids(texts) if texts else ())
        return [next(encoded) if isinstance(answer, str) else answer for answer in answers]

    def _prompt(
        self, chat: Chat, token_ids: Sequence[int], decoding: Decoding, occurrence: int, draft: tuple[int, ...] = ()
    ) -> Prompt:
        return self._fit(token_ids, decoding, occurrence, chat[-1].content, draft)

    def _fit(
        self,
        token_ids: Sequence[int],
        decoding: Decoding,
        occurrence: int,
        text: str,
        draft: tuple[int, ...] = (),
    ) -> Prompt:
        room = self.context - len(token_ids)
        if room < 1:
            raise GenerationError(self._no_room(len(token_ids), text))
        fitting = draft if len(draft) <= room else ()
        return Prompt(tuple(token_ids), min(decoding.max_new_tokens, room), decoding, occurrence, fitting)

    def _no_room(self, tokens: int, text: str) -> str:
        return f"a prompt of {tokens} tokens leaves no room in a context of {self.context}: {text[:60]!r}…"


def occurrences(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt, how many equal ones come before it: repeated prompts draw different samples."""
    seen: dict[tuple[int, ...], int] = {}
    counts = []
    for prompt in prompts:
        key = tuple(prompt)
        counts.append(seen.get(key, 0))
        seen[key] = counts[-1] + 1
    return counts


class AnswerText:
    """Decodes token ids with one tokenizer. Special tokens are not part of any text."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def whole(self, token_ids: Sequence[int], decoding: Decoding) -> str:
        """The text, cut at the first stop string."""
        return _cut(self._read(token_ids), decoding)

    def wholes(self, rows: Sequence[Sequence[int]], decodings: Sequence[Decoding]) -> list[str]:
        """As ``whole``, for many rows with one call of the tokenizer."""
        texts = self._tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
        return [_cut(text, decoding) for text, decoding in zip(texts, decodings, strict=True)]

    def settled(self, token_ids: Sequence[int], decoding: Decoding) -> str:
        """The part of a growing text that further tokens cannot change."""
        text = self.whole(token_ids, decoding).rstrip("\ufffd")
        held_back = max((_overlap(text, stop) for stop in decoding.stop), default=0)
        return text[: len(text) - held_back]

    def has_stop_string(self, token_ids: Sequence[int], decoding: Decoding) -> bool:
        """Whether the last tokens contain a stop string."""
        if not decoding.stop:
            return False
        reach = TOKENS_PER_CHARACTER * (max(map(len, decoding.stop)) + 1)
        text = self._read(token_ids[-reach:])
        return any(stop in text for stop in decoding.stop)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each single token, special tokens included."""
        return [str(self._tokenizer.decode([token], skip_special_tokens=False)) for token in token_ids]

    def _read(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.backend_tokenizer.decode(token_ids, skip_special_tokens=True))


def _cut(text: str, decoding: Decoding) -> str:
    cuts = [at for stop in decoding.stop if (at := text.find(stop)) >= 0]
    return text[: min(cuts)] if cuts else text


def _overlap(text: str, stop: str) -> int:
    """Number of characters at the end of the text that could begin the stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
