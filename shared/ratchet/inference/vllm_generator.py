"""VllmGenerator: a Generator over one checkpoint that a vLLM process runs.

Chats are tokenized here, with the template and profile of training; vLLM gets token ids and does the batching. It does
not know who asks: serving and judging both use it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from transformers import AutoConfig, AutoTokenizer

from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.chat_codec import AnswerText, ChatCodec
from ratchet.inference.generator import Chat, Decoding, Generation, Progress, Reply
from ratchet.inference.model_loading import Hardware
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.sampling import Answer, Prompt
from ratchet.inference.vllm_replica import VllmReplica, VllmReplicas, checked_folder

CONCURRENCY = 16
"""Requests in flight where nothing else is said."""

YIELDED = 32
"""Answers that are handed on together while the others are still being decoded."""

HEARTBEAT_S = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class VllmConditions:
    """The engine and hardware of a vLLM: the fields that are part of an evaluation record's key."""

    engine: str
    dtype: str
    gpu_class: str


class NotForVllm(BrokenCheckpoint):
    """A checkpoint that answers, but not by vLLM."""


class VllmGenerator:
    """One loaded checkpoint. Safe to use from several threads."""

    def __init__(
        self,
        path: Path,
        codec: ChatCodec,
        replicas: VllmReplicas,
        hardware: Hardware,
        *,
        concurrency: int = CONCURRENCY,
        is_copy: bool = False,
    ):
        """Start a replica. ``is_copy`` says that the folder is removed with this model."""
        self._path = path
        self._is_copy = is_copy
        self._codec = codec
        self._end_ids = sorted(codec.end_ids)
        self._replicas = replicas
        self._concurrency = concurrency
        self._beat: Callable[[], None] = lambda: None
        self._replica: VllmReplica = replicas.start(path, codec.weights)
        self.hardware = VllmConditions(f"vllm-{self._replica.api.version()}", hardware.dtype, hardware.gpu_class)

    @classmethod
    def load(
        cls,
        folder: Path,
        weights: str,
        prompt_format: PromptFormat,
        replicas: VllmReplicas,
        hardware: Hardware,
        scratch: Path,
        concurrency: int = CONCURRENCY,
    ) -> Self:
        """Check a folder and start a process for it. Weights of adapters are merged into a copy below ``scratch``.

        Raises BrokenCheckpoint for files that vLLM could not run as they were trained, ServingError if the process does
        not start, and TransientError for a full disk.
        """
        whole = checked_folder(folder, weights, scratch)
        try:
            codec = read_codec(folder, weights, prompt_format)
            return cls(whole, codec, replicas, hardware, concurrency=concurrency, is_copy=whole != folder)
        except BaseException:
            if whole != folder:
                shutil.rmtree(whole, ignore_errors=True)
            raise

    @property
    def weights(self) -> str:
        return self._codec.weights

    @property
    def context(self) -> int:
        return self._codec.context

    @property
    def codec(self) -> ChatCodec:
        return self._codec

    @property
    def text(self) -> AnswerText:
        return self._codec.text

    def report_steps_to(self, beat: Callable[[], None]) -> None:
        """Call ``beat`` about once a second while answers are waited for."""
        self._beat = beat

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt:
        """See ChatCodec.prompt."""
        return self._codec.prompt(chat, decoding, occurrence)

    def refusals(self, chats: Sequence[Chat]) -> dict[int, str]:
        """See ChatCodec.refusals."""
        return self._codec.refusals(chats)

    def generate(self, chats: Sequence[Chat], decoding: Decoding, progress: Progress | None = None) -> list[Generation]:
        answered: dict[int, Generation] = {}
        for places, generations in self.batches(chats, decoding):
            answered.update(zip(places, generations, strict=True))
            if progress:
                progress(len(answered), len(chats))
        return [answered[place] for place in range(len(chats))]

    def batches(
        self,
        chats: Sequence[Chat],
        decoding: Decoding,
        done: frozenset[int] = frozenset(),
        drafts: Sequence[Reply | None] | None = None,
        score_drafts: bool = True,
    ) -> Iterator[tuple[tuple[int, ...], list[Generation]]]:
        """Indices into ``chats`` with their answers, some at a time as they are completed; those in ``done`` are left
        out. vLLM verifies no drafts, so with ``score_drafts`` each is scored by a request of its own.
        """
        prompts = self._codec.prompts(chats, decoding, drafts)

        def answer(place: int) -> Generation:
            prompt = prompts[place]
            found = self.complete(prompt)
            if not (score_drafts and prompt.draft):
                return found
            scores = self._replica.api.score(self._replica.model, prompt.token_ids, prompt.draft)
            return found.model_copy(update={"draft_logprobs": scores})

        asked = [place for place in range(len(prompts)) if place not in done]
        yield from self._each(answer, asked)

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        rows, replica = self._codec.scored(chats, answers), self._replica
        found: dict[int, tuple[float, ...]] = {}
        for places, scores in self._each(
            lambda place: replica.api.score(replica.model, *rows[place]), range(len(rows))
        ):
            found.update(zip(places, scores, strict=True))
        return [found[place] for place in range(len(rows))]

    def in_batches_of(self, rows: int) -> VllmGenerator:
        """The same loaded checkpoint, asked with at most ``rows`` requests in flight. Close the original alone."""
        other = copy(self)
        other._concurrency = rows
        return other

    def complete(self, prompt: Prompt) -> Generation:
        """The answer to one prompt."""
        started, replica = time.perf_counter(), self._replica
        whole = replica.api.complete(replica.model, prompt, self._end_ids)
        answer = Answer(list(whole.token_ids), list(whole.logprobs), top_logprobs=list(whole.top))
        return self.generation(prompt, answer, whole.finish_reason, started)

    def generation(self, prompt: Prompt, answer: Answer, finish_reason: str | None, started: float) -> Generation:
        """What vLLM answered since ``started`` (by time.perf_counter). Raises GenerationError for an unknown end."""
        if finish_reason not in ("stop", "length"):
            raise GenerationError(f"vLLM ended an answer of {self._path} with finish_reason {finish_reason!r}.")
        answer.stopped, answer.done = finish_reason == "stop", True
        answer.latency_s = time.perf_counter() - started
        return self._codec.generation(prompt, answer)

    def close(self) -> None:
        """End the process, and remove the folder if it is a copy."""
        self._replica.stop()
        if self._is_copy:
            shutil.rmtree(self._path, ignore_errors=True)

    def _each(
        self, do: Callable[[int], Result], places: Sequence[int]
    ) -> Iterator[tuple[tuple[int, ...], list[Result]]]:
        """Do something for each place, ``_concurrency`` at a time, and yield what is done in the order of its end."""
        pool = ThreadPoolExecutor(self._concurrency, "vllm")
        try:
            waited: dict[Future[Result], int] = {pool.submit(do, place): place for place in places}
            ready: dict[int, Result] = {}
            while waited:
                ended, _ = wait(waited, HEARTBEAT_S, FIRST_COMPLETED)
                self._beat()
                ready.update((waited.pop(future), future.result()) for future in ended)
                if ready and (len(ready) >= YIELDED or not waited):
                    yield tuple(ready), list(ready.values())
                    ready = {}
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_codec(path: Path, weights: str, prompt_format: PromptFormat) -> ChatCodec:
    """The codec of a folder. Raises BrokenCheckpoint for an unreadable tokenizer, and NotForVllm for a profile with
    logits processors, which vLLM would not run: the model would differ from the one that is served or judged elsewhere.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        config = AutoConfig.from_pretrained(path, **options).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpoint(f"{path} cannot be read: {error}") from error
    context = int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)
    codec = ChatCodec(tokenizer, prompt_format, context, weights)
    if codec.processors:
        raise NotForVllm(
            f"profile {prompt_format.profile.name!r} needs logits processors, which vLLM does not run: "
            "the engine is to be embedded (serving.engine, inference.engine)."
        )
    return codec
