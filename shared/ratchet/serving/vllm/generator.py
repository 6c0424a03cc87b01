"""A checkpoint behind vLLM, asked in the very tokens that it was trained and judged with."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from ratchet.errors import BrokenCheckpoint, GenerationError, RatchetError
from ratchet.inference.answer_text import AnswerText
from ratchet.inference.decode import Answer
from ratchet.inference.dress import Dress
from ratchet.inference.framing import ChatCodec
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.inference.hardware import Hardware
from ratchet.inference.sampling import Prompt
from ratchet.serving.protocol import Conditions
from ratchet.serving.ticket import Ticket
from ratchet.serving.vllm.api import Piece
from ratchet.serving.vllm.folder import ServedFolder
from ratchet.serving.vllm.seats import Seat, Seats

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Requests of one canary in flight."""


class VllmGenerator:
    """One loaded checkpoint. Chats become tokens here, by the same template and profile as in training.

    A profile whose decoding runs code of its own (logits processors) is refused: it would run on none of vLLM's
    steps, and what is served would not be what was judged.
    """

    def __init__(self, folder: ServedFolder, seats: Seats, dress: Dress, here: Hardware):
        self.weights = folder.weights
        self._folder = folder
        self._seats = seats
        self._framing = _framing(folder, dress)
        self._end_ids = sorted(self._framing.end_ids)
        self._lock = threading.Lock()
        self._seat: Seat = seats.take(folder)
        self.hardware = Conditions(
            engine=f"vllm-{self._seat.api.version()}", dtype=here.dtype, gpu_class=here.gpu_class
        )
        self.is_closed = False

    @property
    def context(self) -> int:
        return self._framing.context

    @property
    def text(self) -> AnswerText:
        return self._framing.text

    def prompt(self, chat: Chat, decoding: Decoding, occurrence: int = 0) -> Prompt:
        return self._framing.prompt(chat, decoding, occurrence)

    def generate(self, chats: Sequence[Chat], decoding: Decoding) -> list[Generation]:
        prompts = self._framing.prompts(chats, decoding)
        with ThreadPoolExecutor(AT_ONCE, "vllm-generate") as pool:
            return list(pool.map(self._whole, prompts))

    def score(self, chats: Sequence[Chat], answers: Sequence[Reply]) -> list[tuple[float, ...]]:
        seat = self._seat
        with ThreadPoolExecutor(AT_ONCE, "vllm-score") as pool:
            rows = self._framing.scored(chats, answers)
            return list(pool.map(lambda row: seat.api.score(seat.model, *row), rows))

    def answer(self, ticket: Ticket) -> None:
        """Settle a client's ticket, token by token if it listens."""
        generation = self._growing(ticket) if ticket.listens else self._whole(ticket.prompt)
        if generation is not None:
            ticket.settle(generation)

    def tend(self) -> None:
        """Take a seat again where vLLM has lost it: its process died, or it was restarted with other weights."""
        with self._lock:
            if self.is_closed or self._seat.is_taken():
                return
            log.warning("vLLM has lost %s; bringing it back", self._folder.name)
            try:
                self._seat.leave()
            except RatchetError as error:
                log.warning("%s", error)
            self._seat = self._seats.take(self._folder)

    def close(self) -> None:
        with self._lock:
            self.is_closed = True
            self._seat.leave()

    def _whole(self, prompt: Prompt) -> Generation:
        started, seat = time.perf_counter(), self._seat
        piece = seat.api.complete(seat.model, prompt, self._end_ids)
        answer = Answer()
        self._add(answer, piece)
        return self._ended(prompt, answer, piece.finish_reason, started)

    def _growing(self, ticket: Ticket) -> Generation | None:
        """The answer, or None where nobody waits for it any longer."""
        started, seat, prompt = time.perf_counter(), self._seat, ticket.prompt
        answer, finish_reason = Answer(), None
        for piece in seat.api.stream(seat.model, prompt, self._end_ids):
            for token_id, logprob in zip(piece.token_ids, piece.logprobs, strict=True):
                self._add(answer, Piece((token_id,), (logprob,), None))
                if ticket.grew(answer):
                    return None
            finish_reason = piece.finish_reason or finish_reason
        return self._ended(prompt, answer, finish_reason, started)

    @staticmethod
    def _add(answer: Answer, piece: Piece) -> None:
        answer.token_ids += piece.token_ids
        answer.logprobs += piece.logprobs

    def _ended(self, prompt: Prompt, answer: Answer, finish_reason: str | None, started: float) -> Generation:
        if finish_reason not in ("stop", "length"):
            raise GenerationError(f"vLLM ended an answer of {self._folder.name} by {finish_reason!r}.")
        answer.stopped, answer.done = finish_reason == "stop", True
        answer.latency_s = time.perf_counter() - started
        return self._framing.generation(prompt, answer)


def _framing(folder: ServedFolder, dress: Dress) -> ChatCodec:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder.tokenizer, **options)
        config = AutoConfig.from_pretrained(folder.whole, **options).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpoint(f"{folder.path} cannot be read: {error}") from error
    context = int(getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length)
    framing = ChatCodec(tokenizer, dress, context, folder.weights)
    if framing.processors:
        raise BrokenCheckpoint(
            f"profile {dress.profile.name!r} steers decoding by code of its own, which vLLM does not run: "
            "serve it with serving.engine = embedded."
        )
    return framing
