"""A model in this process that answers chats in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from ratchet.errors import GenerationError
from ratchet.inference.answer_text import AnswerText
from ratchet.inference.batch_decoder import ContinuousBatch, decode
from ratchet.inference.batching import Plan, plan_batches
from ratchet.inference.dress import Dress
from ratchet.inference.framing import ChatCodec
from ratchet.inference.generator import Chat, Decoding, Generation, Progress, Reply
from ratchet.inference.hardware import Hardware, pick_hardware
from ratchet.inference.loading import LoadedModel, load_model
from ratchet.inference.sampling import Answer, Prompt
from ratchet.inference.scoring import Scored, score_batch
from ratchet.inference.shortage import is_out_of_memory
from ratchet.settings.inference import InferenceSettings

Row = TypeVar("Row")
Result = TypeVar("Result")


class LocalGenerator:
    """A Generator over a loaded checkpoint. On a CPU in fp32 the same prompts give the same bits again."""

    def __init__(self, loaded: LoadedModel, settings: InferenceSettings, dress: Dress):
        self._loaded = loaded
        self._framing = ChatCodec(loaded.tokenizer, dress, loaded.context, loaded.weights)
        self._settings = settings
        self._pad_id = int(loaded.tokenizer.pad_token_id or min(self._framing.end_ids))
        self._memory_rows = settings.batch_size

    @classmethod
    def load(
        cls,
        folder: Path,
        settings: InferenceSettings | None = None,
        expected_weights: str | None = None,
        dress: Dress | None = None,
    ) -> LocalGenerator:
        """Load a verified folder; BrokenCheckpoint names what is wrong with it."""
        settings = settings or InferenceSettings()
        loaded = load_model(folder, pick_hardware(settings), expected_weights)
        return cls(loaded, settings, dress or Dress())

    def close(self) -> None:
        """Free the weights at once, without waiting for the garbage collector; nothing can be asked after it."""
        for parameter in self._loaded.model.parameters():
            parameter.data = torch.empty(0)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def weights(self) -> str:
        return self._loaded.weights

    @property
    def hardware(self) -> Hardware:
        return self._loaded.hardware

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self._loaded.context

    @property
    def text(self) -> AnswerText:
        return self._framing.text

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt:
        """A chat, dressed, as tokens; its length limit cut to the context. GenerationError without room."""
        return self._framing.prompt(chat, decoding, occurrence)

    def generate(self, chats: Sequence[Chat], decoding: Decoding, progress: Progress | None = None) -> list[Generation]:
        answered: dict[int, Generation] = {}
        for batch, generations in self.batches(chats, decoding):
            answered.update(zip(batch, generations, strict=True))
            if progress:
                progress(len(answered), len(chats))
        return [answered[index] for index in range(len(chats))]

    def batches(
        self,
        chats: Sequence[Chat],
        decoding: Decoding,
        done: frozenset[int] = frozenset(),
        drafts: Sequence[Reply | None] | None = None,
        score_drafts: bool = True,
    ) -> Iterator[tuple[tuple[int, ...], list[Generation]]]:
        """Indices into ``chats`` with their answers, a batch at a time.

        Batches whose every index is in ``done`` are left out; the others are the same as without ``done``, so
        that an interrupted run goes on with the very numbers it would have had. ``drafts`` are the answers that are
        expected: they make right answers fast, and change none. Without ``score_drafts``, those are left out that
        stand among wrong ones, and have no log-probabilities.
        """
        prompts = self._framing.prompts(chats, decoding, drafts)
        for batch in self.plan(prompts):
            if not done.issuperset(batch):
                yield batch, self.answer([prompts[index] for index in batch], score_drafts=score_drafts)

    def plan(self, prompts: Sequence[Prompt]) -> Plan:
        """The batches in which these prompts are best answered."""
        return plan_batches(
            [prompt.token_ids for prompt in prompts],
            [prompt.max_new_tokens for prompt in prompts],
            max_rows=self._settings.batch_size,
            max_tokens=self._settings.batch_tokens,
        )

    def answer(self, prompts: Sequence[Prompt], score_drafts: bool = True) -> list[Generation]:
        """Answer these prompts in one batch (in parts of it where memory is short), in order."""
        return self._within_memory(prompts, lambda part: self._answer(part, score_drafts))

    def continuous_batch(self, max_rows: int) -> ContinuousBatch[Any]:
        """A batch that prompts join and leave one by one, of so many rows at most."""
        return ContinuousBatch(
            self._loaded.model,
            self._framing,
            self._pad_id,
            max_rows=min(max_rows, self._settings.batch_size),
            max_tokens=self._settings.batch_tokens,
        )

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        rows = self._framing.scored(chats, answers)
        if not rows:
            return []
        logits_a_row = (max(len(answer) for _, answer in rows) + 1) * self._loaded.model.config.vocab_size
        whole = [[*prompt, *answer] for prompt, answer in rows]
        plan = plan_batches(
            whole,
            [0] * len(whole),
            max_rows=max(1, min(self._settings.batch_size, self._settings.score_logits // logits_a_row)),
            max_tokens=self._settings.batch_tokens,
        )
        scores: dict[int, tuple[float, ...]] = {}
        for batch in plan:
            found = self._within_memory([rows[index] for index in batch], self._score)
            scores.update(zip(batch, found, strict=True))
        return [scores[index] for index in range(len(rows))]

    def _answer(self, prompts: Sequence[Prompt], score_drafts: bool) -> list[Generation]:
        def says_stop(row: int, answer: Answer) -> bool:
            return self.text.says_stop(answer.token_ids, prompts[row].decoding)

        answers = decode(
            self._loaded.model,
            prompts,
            end_ids=self._framing.end_ids,
            pad_id=self._pad_id,
            timeout_s=self._settings.batch_timeout_s,
            max_logits=self._settings.score_logits,
            processors=self._framing.processors,
            ends=says_stop if any(prompt.decoding.stop for prompt in prompts) else None,
            score_drafts=score_drafts,
        )
        return self._framing.generations(prompts, answers)

    def _score(self, rows: Sequence[Scored]) -> list[tuple[float, ...]]:
        return score_batch(self._loaded.model, rows, self._pad_id)

    def _within_memory(self, rows: Sequence[Row], run: Callable[[Sequence[Row]], list[Result]]) -> list[Result]:
        """Run over rows; where memory is short over halves of them, and remember what fitted."""
        results: list[Result] = []
        while len(results) < len(rows):
            part = rows[len(results) : len(results) + self._memory_rows]
            try:
                results += run(part)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise GenerationError(f"the model failed: {error}") from error
                if len(part) == 1:
                    raise GenerationError("out of memory with a batch of one prompt.") from error
                self._memory_rows = len(part) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return results
