"""LocalGenerator: a Generator over a model in this process.

It divides prompts into batches that depend on the prompts alone, and decodes them with batch_decoder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from ratchet.errors import GenerationError
from ratchet.inference.batch_decoder import ContinuousBatch, decode
from ratchet.inference.chat_codec import AnswerText, ChatCodec
from ratchet.inference.generator import Chat, Decoding, Generation, Progress, Reply, TokenScores
from ratchet.inference.kv_batch import is_out_of_memory
from ratchet.inference.model_loading import Hardware, LoadedModel, load_model, pick_hardware
from ratchet.inference.prefill import Scored, score_batch, score_texts
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.sampling import Answer, Prompt
from ratchet.settings.serving import InferenceSettings

Row = TypeVar("Row")
Result = TypeVar("Result")

Plan = tuple[tuple[int, ...], ...]
"""Batches of indices into the prompts."""


@dataclass(frozen=True)
class BatchLimits:
    """Limits of one batch besides ``inference.batch_size``, which limits its rows."""

    max_tokens: int = 262_144
    """Tokens of all rows, padding and answers included: 8 GiB of keys and values for Llama 3.2 1B in bf16."""

    max_logits: int = 64_000_000
    """Logits held at once while given texts are scored: 256 MB in float32."""

    timeout_s: float = 3_600.0
    """A batch that takes longer raises an error; its answers are never truncated."""


HEARTBEAT_S = 1.0
"""Shortest time between two heartbeats."""


class Heartbeat:
    """Calls ``beat`` at most once every HEARTBEAT_S."""

    def __init__(self, beat: Callable[[], None]):
        self._beat = beat
        self._last = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last >= HEARTBEAT_S:
            self._last = now
            self._beat()


class LocalGenerator:
    """A Generator over a loaded checkpoint. On a CPU in fp32 its answers are reproducible bit for bit."""

    def __init__(
        self,
        loaded: LoadedModel,
        settings: InferenceSettings,
        prompt_format: PromptFormat,
        limits: BatchLimits = BatchLimits(),
    ):
        self._limits = limits
        self._loaded = loaded
        self._codec = ChatCodec(loaded.tokenizer, prompt_format, loaded.context, loaded.weights)
        self._settings = settings
        self._prompt_format = prompt_format
        self._pad_id = int(loaded.tokenizer.pad_token_id or min(self._codec.end_ids))
        self._memory_rows = settings.batch_size
        self._heartbeat: Callable[[], None] = lambda: None

    def report_steps_to(self, beat: Callable[[], None]) -> None:
        """Call ``beat`` while a batch is decoded, so that long work on a slow machine is seen to go on."""
        self._heartbeat = Heartbeat(beat)

    @classmethod
    def load(
        cls,
        folder: Path,
        settings: InferenceSettings | None = None,
        expected_weights: str | None = None,
        prompt_format: PromptFormat | None = None,
        limits: BatchLimits = BatchLimits(),
    ) -> LocalGenerator:
        """Load a verified folder; BrokenCheckpoint names what is wrong with it."""
        settings = settings or InferenceSettings()
        loaded = load_model(folder, pick_hardware(settings), expected_weights)
        return cls(loaded, settings, prompt_format or PromptFormat(), limits)

    def in_batches_of(self, rows: int) -> LocalGenerator:
        """A generator over the same weights, whose batches have at most ``rows`` rows."""
        settings = self._settings.model_copy(update={"batch_size": rows})
        other = LocalGenerator(self._loaded, settings, self._prompt_format, self._limits)
        other._heartbeat = self._heartbeat
        return other

    def close(self) -> None:
        """Free the weights at once, without waiting for the garbage collector. The generator is unusable afterwards."""
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
        """Maximum number of tokens of prompt and answer together."""
        return self._loaded.context

    @property
    def text(self) -> AnswerText:
        return self._codec.text

    @property
    def codec(self) -> ChatCodec:
        return self._codec

    @property
    def constrains_answers(self) -> bool:
        """Whether answers are held to a response_format; see ServedModel."""
        return False

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt:
        """See ChatCodec.prompt."""
        return self._codec.prompt(chat, decoding, occurrence)

    def refusals(self, chats: Sequence[Chat]) -> dict[int, str]:
        """See ChatCodec.refusals."""
        return self._codec.refusals(chats)

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
        """Indices into ``chats`` with their answers, one batch at a time.

        Batches whose indices are all in ``done`` are skipped, and the others are the same as without ``done``, so
        that a resumed run gives the same results as an uninterrupted one. ``drafts`` are the expected answers: they
        speed up right answers and change none. Without ``score_drafts``, drafts are skipped while most are wrong, and
        have no log-probabilities.
        """
        prompts = self._codec.prompts(chats, decoding, drafts)
        for batch in self.plan(prompts):
            if not done.issuperset(batch):
                yield batch, self.answer([prompts[index] for index in batch], score_drafts=score_drafts)

    def plan(self, prompts: Sequence[Prompt]) -> Plan:
        """The batches in which to answer these prompts."""
        return plan_batches(
            [prompt.token_ids for prompt in prompts],
            [prompt.max_new_tokens for prompt in prompts],
            max_rows=self._settings.batch_size,
            max_tokens=self._limits.max_tokens,
        )

    def answer(self, prompts: Sequence[Prompt], score_drafts: bool = True) -> list[Generation]:
        """Answer these prompts, in order: in one batch, or in smaller ones if memory runs out."""
        return self._within_memory(prompts, lambda part: self._answer(part, score_drafts))

    def continuous_batch(self, max_rows: int) -> ContinuousBatch[Any]:
        """A batch of at most ``max_rows`` that requests join and leave one by one."""
        return ContinuousBatch(
            self._loaded.model,
            self._codec,
            self._pad_id,
            max_rows=min(max_rows, self._settings.batch_size),
            max_tokens=self._limits.max_tokens,
        )

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        rows = self._codec.scored(chats, answers)
        whole = [[*prompt, *answer] for prompt, answer in rows]
        return self._scored(rows, whole, max((len(answer) + 1 for _, answer in rows), default=1), self._score)

    def score_texts(self, texts: Sequence[tuple[int, ...]], top: int = 0) -> list[TokenScores]:
        """Each text's tokens scored after those before them, with the ``top`` likeliest tokens at each position."""

        def score(rows: Sequence[tuple[int, ...]]) -> list[TokenScores]:
            return score_texts(self._loaded.model, rows, self._pad_id, top)

        return self._scored(texts, texts, max(map(len, texts), default=1), score)

    def _scored(
        self,
        rows: Sequence[Row],
        whole: Sequence[Sequence[int]],
        longest: int,
        score: Callable[[Sequence[Row]], list[Result]],
    ) -> list[Result]:
        """Score rows in batches; ``longest`` is the most positions of a row for which logits are held."""
        logits_per_row = longest * self._loaded.model.config.get_text_config().vocab_size
        plan = plan_batches(
            whole,
            [0] * len(whole),
            max_rows=max(1, min(self._settings.batch_size, self._limits.max_logits // logits_per_row)),
            max_tokens=self._limits.max_tokens,
        )
        scores: dict[int, Result] = {}
        for batch in plan:
            found = self._within_memory([rows[index] for index in batch], score)
            scores.update(zip(batch, found, strict=True))
        return [scores[index] for index in range(len(rows))]

    def _answer(self, prompts: Sequence[Prompt], score_drafts: bool) -> list[Generation]:
        def has_stop_string(row: int, answer: Answer) -> bool:
            return self.text.has_stop_string(answer.token_ids, prompts[row].decoding)

        answers = decode(
            self._loaded.model,
            prompts,
            end_ids=self._codec.end_ids,
            pad_id=self._pad_id,
            timeout_s=self._limits.timeout_s,
            max_logits=self._limits.max_logits,
            processors=self._codec.processors,
            ends=has_stop_string if any(prompt.decoding.stop for prompt in prompts) else None,
            score_drafts=score_drafts,
            on_step=self._heartbeat,
        )
        return self._codec.generations(prompts, answers)

    def _score(self, rows: Sequence[Scored]) -> list[tuple[float, ...]]:
        self._heartbeat()
        return score_batch(self._loaded.model, rows, self._pad_id)

    def _within_memory(self, rows: Sequence[Row], run: Callable[[Sequence[Row]], list[Result]]) -> list[Result]:
        """Call ``run`` on all rows. When memory runs out, continue with half as many at a time, in later calls too."""
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


def plan_batches(
    prompts: Sequence[Sequence[int]], new_tokens: Sequence[int], *, max_rows: int, max_tokens: int
) -> Plan:
    """Sort prompts by length, then by tokens, and cut them into batches.

    ``new_tokens[i]`` is the maximum length of answer ``i``. A batch has at most ``max_rows`` rows, and rows times
    padded width (longest prompt plus longest answer) is at most ``max_tokens``; a single row always fits.
    The same prompts in another order give the same batches.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i])))
    plan: list[tuple[int, ...]] = []
    batch: list[int] = []
    longest_answer = 0
    for index in order:
        answer = max(longest_answer, new_tokens[index])
        width = len(prompts[index]) + answer
        if batch and (len(batch) == max_rows or (len(batch) + 1) * width > max_tokens):
            plan.append(tuple(batch))
            batch, answer = [], new_tokens[index]
        batch.append(index)
        longest_answer = answer
    if batch:
        plan.append(tuple(batch))
    return tuple(plan)
