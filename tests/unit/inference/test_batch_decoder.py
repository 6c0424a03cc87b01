"""Rows that come and go between two tokens are answered as they would be alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.batch_decoder import JOIN_AFTER, MAX_PREFILL_TOKENS, ContinuousBatch, decode
from ratchet.inference.generator import Decoding, Generation
from ratchet.inference.local_generator import BatchLimits, LocalGenerator
from ratchet.inference.prompt_format import PromptFormat
from ratchet.inference.sampling import Answer, Prompt
from ratchet.settings.serving import InferenceSettings
from transformers import GPT2Config, GPT2LMHeadModel

from tests.support.tiny_model import build_tiny_model


@dataclass
class Asked:
    """``ends`` may end the answer after a token."""

    prompt: Prompt
    ends: Callable[[Answer], bool] = lambda _answer: False
    answered: list[Generation] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def on_token(self, answer: Answer) -> bool:
        self.tokens = list(answer.token_ids)
        return self.ends(answer)

    def settle(self, generation: Generation) -> None:
        self.answered.append(generation)


def asked(generator: LocalGenerator, text: str = "1+1=", **decoding: Any) -> Asked:
    return Asked(generator.prompt((Message(role="user", content=text),), Decoding(**decoding)))


def some(generator: LocalGenerator, count: int) -> list[Asked]:
    """Prompts and answers of many lengths, greedy and sampled, some with a stop string."""
    draw = random.Random(0)
    return [
        asked(
            generator,
            "".join(draw.choice("abc123 +=") for _ in range(draw.randint(1, 40))),
            max_new_tokens=draw.randint(1, 40),
            temperature=draw.choice([0.0, 0.0, 1.0]),
            top_p=draw.choice([1.0, 0.9]),
            stop=draw.choice([(), ("1",)]),
            seed=number,
        )
        for number in range(count)
    ]


def drain(batch: ContinuousBatch[Asked], joining: Sequence[Asked] = ()) -> int:
    """Advance until all are answered; those that memory was too short for come again. The tokens that it took."""
    waiting, steps = list(joining), 0
    while waiting or batch.requests:
        fitting = batch.fitting([one.prompt for one in waiting])
        waiting = [*batch.advance(waiting[:fitting]), *waiting[fitting:]]
        steps += 1
    return steps


def test_a_row_that_joins_at_any_time_is_answered_as_alone(generator: LocalGenerator) -> None:
    everyone = some(generator, 30)
    draw, waiting = random.Random(1), list(everyone)
    batch: ContinuousBatch[Asked] = generator.continuous_batch(12)
    together = 0
    while waiting or batch.requests:
        fitting = batch.fitting([one.prompt for one in waiting[: draw.randint(0, 4)]])
        assert not batch.advance(waiting[:fitting])
        waiting = waiting[fitting:]
        together = max(together, len(batch.requests))
    assert 8 <= together <= 12
    for one in everyone:
        [alone], [answered] = generator.answer([one.prompt]), one.answered
        assert (answered.token_ids, answered.text) == (alone.token_ids, alone.text)
        assert answered.finish_reason == alone.finish_reason
        assert answered.token_logprobs == pytest.approx(alone.token_logprobs, abs=1e-4)


def test_a_short_answer_does_not_wait_for_a_long_one(generator: LocalGenerator) -> None:
    batch: ContinuousBatch[Asked] = generator.continuous_batch(8)
    long, short = asked(generator, max_new_tokens=200), asked(generator, "2+2=", max_new_tokens=3)
    batch.advance([long])
    for joining in ([short], [], []):
        batch.advance(joining)
    assert short.answered
    assert len(long.tokens) == 4
    assert batch.requests == [long]


def test_a_few_join_many_after_some_tokens_and_many_at_once(generator: LocalGenerator) -> None:
    batch: ContinuousBatch[Asked] = generator.continuous_batch(64)
    batch.advance([asked(generator, max_new_tokens=50) for _ in range(3 * JOIN_AFTER)])
    newcomer = asked(generator).prompt
    assert batch.fitting([newcomer]) == 0
    assert batch.fitting([newcomer] * 3) == 3
    for _ in range(JOIN_AFTER):
        batch.advance([])
    assert batch.fitting([newcomer]) == 1


def limited(generator: LocalGenerator, **settings: int) -> LocalGenerator:
    inference = InferenceSettings(batch_size=settings.pop("batch_size", 256))
    return LocalGenerator(generator._loaded, inference, PromptFormat(), BatchLimits(**settings))


@pytest.mark.parametrize(
    ("settings", "fitting"),
    [({"batch_size": 7}, 7), ({"max_tokens": 480}, 8), ({"max_tokens": 64}, 1), ({}, 20)],
)
def test_how_many_rows_a_batch_has_is_limited(
    generator: LocalGenerator, settings: dict[str, int], fitting: int
) -> None:
    batch: ContinuousBatch[Asked] = limited(generator, **settings).continuous_batch(20)
    prompts = [asked(generator, max_new_tokens=52).prompt] * 30
    assert len(prompts[0].token_ids) == 8
    assert batch.fitting(prompts) == fitting


def test_the_prompt_tokens_between_two_steps_are_limited(generator: LocalGenerator) -> None:
    batch: ContinuousBatch[Asked] = generator.continuous_batch(64)
    long = asked(generator, "1" * 900).prompt
    assert batch.fitting([long] * 10) == MAX_PREFILL_TOKENS // len(long.token_ids)


def test_rows_that_left_are_not_counted(generator: LocalGenerator) -> None:
    batch: ContinuousBatch[Asked] = generator.continuous_batch(2)
    leaving = Asked(asked(generator, max_new_tokens=100).prompt, ends=lambda answer: len(answer.token_ids) == 2)
    staying, newcomer = asked(generator, max_new_tokens=100), asked(generator)
    batch.advance([leaving, staying])
    assert batch.fitting([newcomer.prompt]) == 0
    batch.advance([])
    assert batch.fitting([newcomer.prompt]) == 1
    assert len(leaving.answered) == 1


@contextmanager
def room_for(generator: LocalGenerator, rows: int) -> Iterator[None]:
    """The model runs out of memory on larger batches."""

    def check(_module: object, _args: object, options: dict[str, Any]) -> None:
        if len(options["input_ids"]) > rows:
            raise torch.OutOfMemoryError("no room")

    hook = generator._loaded.model.register_forward_pre_hook(check, with_kwargs=True)
    yield
    hook.remove()


def test_out_of_memory_restarts_all_rows_in_smaller_batches(generator: LocalGenerator) -> None:
    everyone = some(generator, 12)
    batch: ContinuousBatch[Asked] = generator.continuous_batch(64)
    with room_for(generator, 5):
        batch.advance(everyone[:5])
        drain(batch, everyone[5:])
    for one in everyone:
        assert one.answered[0].token_ids == generator.answer([one.prompt])[0].token_ids


def test_no_memory_for_one_is_an_error(generator: LocalGenerator) -> None:
    batch: ContinuousBatch[Asked] = generator.continuous_batch(4)
    with room_for(generator, 0), pytest.raises(GenerationError, match="out of memory with a batch of one"):
        drain(batch, some(generator, 3))


def test_a_model_that_computes_nan_is_broken_and_a_cleared_batch_can_be_reused(generator: LocalGenerator) -> None:
    batch: ContinuousBatch[Asked] = generator.continuous_batch(4)
    norm = generator._loaded.model.model.norm.weight
    healthy = norm.clone()
    batch.advance([asked(generator, max_new_tokens=9)])
    norm.fill_(float("nan"))
    with pytest.raises(BrokenCheckpoint, match="NaN"):
        batch.advance([])
    norm.copy_(healthy)
    batch.clear()
    after = asked(generator, max_new_tokens=2)
    drain(batch, [after])
    assert len(after.answered) == 1


def test_a_model_that_forgets_tokens_is_asked_one_batch_after_the_other(tmp_path: Path) -> None:
    folder = build_tiny_model(
        tmp_path / "model", seed=3, use_sliding_window=True, sliding_window=8, layer_types=["sliding_attention"] * 2
    )
    generator = LocalGenerator.load(folder)
    batch: ContinuousBatch[Asked] = generator.continuous_batch(8)
    first, second = some(generator, 2)
    batch.advance([first])
    assert batch.fitting([second.prompt]) == 0
    drain(batch, [second])
    assert first.answered
    assert second.answered


def test_an_answer_that_fills_the_context_does_not_fail_the_rows_beside_it() -> None:
    """Positions are learned, and the ended row stays in the batch until more have ended."""
    shape: dict[str, Any] = {"vocab_size": 50, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).eval()
    long = Prompt(tuple(range(1, 31)), 2, Decoding())
    short = [Prompt((token,), 20, Decoding()) for token in range(1, 8)]

    def answers(*prompts: Prompt) -> list[list[int]]:
        found = decode(model, prompts, end_ids=frozenset(), pad_id=0, timeout_s=60.0, max_logits=10_000)
        return [answer.token_ids for answer in found]

    together = answers(long, *short)
    assert [len(token_ids) for token_ids in together] == [2, *[20] * 7]
    assert together == [alone for prompt in (long, *short) for alone in answers(prompt)]
