"""Chats as tokens and tokens as answers: the same for a model in this process and for one behind a server."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.errors import GenerationError
from ratchet.inference.answer_text import AnswerText
from ratchet.inference.batching import occurrences
from ratchet.inference.chat import Tokenizer, encode, end_of_turn, prompt_ids_batch, stop_ids
from ratchet.inference.dress import Dress
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.inference.sampling import Answer, Prompt
from ratchet.inference.scoring import Scored


class ChatCodec:
    """One checkpoint's tokenizer, dressed. ``context`` is the most tokens of prompt and answer together."""

    def __init__(self, tokenizer: Tokenizer, dress: Dress, context: int, weights: str):
        self.text = AnswerText(tokenizer)
        self.end_ids = frozenset(stop_ids(tokenizer))
        self.processors = dress.profile.logits_processors(tokenizer)
        self.context = context
        self.weights = weights
        self._tokenizer = tokenizer
        self._dress = dress

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt:
        """A chat, dressed, as tokens; its length limit cut to the context. GenerationError without room."""
        return self._prompt(chat, self._token_ids([chat])[0], self._dress.decoding(decoding), occurrence)

    def prompts(
        self, chats: Sequence[Chat], decoding: Decoding, drafts: Sequence[Reply | None] | None = None
    ) -> list[Prompt]:
        """Prompts that know which of several equal ones they are, with their drafts where these fit the context."""
        rows = self._token_ids(chats)
        dressed = self._dress.decoding(decoding)
        replies = self._replies([draft or () for draft in drafts]) if drafts else [()] * len(rows)
        return [
            self._prompt(chat, row, dressed, occurrence, draft)
            for chat, row, occurrence, draft in zip(chats, rows, occurrences(rows), replies, strict=True)
        ]

    def scored(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[Scored]:
        """Prompts with the answers that are to be scored after them; a text gets its end token."""
        return list(zip(self._token_ids(chats), self._replies(answers), strict=True))

    def generation(self, prompt: Prompt, answer: Answer) -> Generation:
        return self._generation(prompt, answer, self.text.whole(answer.token_ids, prompt.decoding))

    def generations(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[Generation]:
        """``generation`` of many, with one call of the tokenizer."""
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
        )

    def _token_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        return prompt_ids_batch(self._tokenizer, [self._dress.chat(chat) for chat in chats])

    def _replies(self, answers: Sequence[Reply]) -> list[tuple[int, ...]]:
        end = end_of_turn(self._tokenizer)
        texts = [answer + end for answer in answers if isinstance(answer, str)]
        encoded = iter(encode(self._tokenizer, texts))
        return [tuple(next(encoded)) if isinstance(answer, str) else answer for answer in answers]

    def _prompt(
        self, chat: Chat, token_ids: Sequence[int], dressed: Decoding, occurrence: int, draft: tuple[int, ...] = ()
    ) -> Prompt:
        room = self.context - len(token_ids)
        if room < 1:
            raise GenerationError(
                f"a prompt of {len(token_ids)} tokens leaves no room in a context of {self.context}: "
                f"{chat[-1].content[:60]!r}…"
            )
        fitting = draft if len(draft) <= room else ()
        return Prompt(tuple(token_ids), min(dressed.max_new_tokens, room), dressed, occurrence, fitting)
