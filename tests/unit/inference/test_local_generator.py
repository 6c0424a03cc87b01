"""The local generator: the same bits again, whatever the batch; ends, limits, and shortages of memory."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from ratchet.data.example import Example, Message
from ratchet.errors import BrokenCheckpoint, GenerationError
from ratchet.inference.batch_decoder import decode
from ratchet.inference.chat_codec import occurrences
from ratchet.inference.generator import Chat, Decoding, Generation, Generator
from ratchet.inference.local_generator import BatchLimits, LocalGenerator, plan_batches
from ratchet.inference.model_loading import LoadedModel, load_model, pick_hardware
from ratchet.inference.prompt_format import PromptFormat
from ratchet.profiles.profile import get_profile
from ratchet.settings.serving import InferenceSettings


def ask(text: str) -> Chat:
    return (Message(role="user", content=text),)


def some_chats(count: int) -> list[Chat]:
    draw = random.Random(0)
    return [ask("".join(draw.choice("abc123 +=") for _ in range(draw.randint(1, 30)))) for _ in range(count)]


def said(generations: Sequence[Generation]) -> list[dict[str, Any]]:
    """Everything but the latency."""
    return [generation.model_dump(exclude={"latency_s"}) for generation in generations]


def with_settings(lively: Path, **settings: Any) -> LocalGenerator:
    return LocalGenerator.load(lively, InferenceSettings(**settings))


@pytest.fixture
def loaded(lively: Path) -> LoadedModel:
    return load_model(lively, pick_hardware(InferenceSettings()))


CHATS = some_chats(40)
GREEDY = Decoding(max_new_tokens=48)
SAMPLED = Decoding(max_new_tokens=24, temperature=1.0, top_p=0.95, seed=5)


def test_it_is_a_generator(generator: LocalGenerator) -> None:
    assert isinstance(generator, Generator)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
def test_the_same_checkpoint_gives_the_same_bits_again(lively: Path, decoding: Decoding) -> None:
    one, other = (with_settings(lively, batch_size=16).generate(CHATS, decoding) for _ in range(2))
    assert said(one) == said(other)
    assert {generation.finish_reason for generation in one} == {"stop", "length"}


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED])
def test_answers_do_not_depend_on_the_batch(lively: Path, decoding: Decoding) -> None:
    batched = with_settings(lively, batch_size=40).generate(CHATS[:12], decoding)
    alone = with_settings(lively, batch_size=1).generate(CHATS[:12], decoding)
    assert [g.token_ids for g in batched] == [g.token_ids for g in alone]
    for one, other in zip(batched, alone, strict=True):
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def test_answers_come_in_the_order_asked(generator: LocalGenerator) -> None:
    forward, backward = generator.generate(CHATS, GREEDY), generator.generate(CHATS[::-1], GREEDY)
    assert said(forward) == said(backward[::-1])


def test_an_end_token_ends_the_answer_and_is_counted(generator: LocalGenerator) -> None:
    ended = [g for g in generator.generate(CHATS, GREEDY) if g.finish_reason == "stop"]
    assert ended
    for generation in ended:
        assert generator.text.pieces(generation.token_ids[-1:]) in (["<|im_end|>"], ["<|endoftext|>"])
        assert len(generation.token_ids) == len(generation.token_logprobs) <= 48
        assert "<|" not in generation.text


def test_scores_of_the_tokens_are_their_probabilities_when_generated(generator: LocalGenerator) -> None:
    for decoding in (GREEDY, SAMPLED):
        answers = generator.generate(CHATS, decoding)
        scores = generator.score(CHATS, [answer.token_ids for answer in answers])
        for answer, score in zip(answers, scores, strict=True):
            assert score == pytest.approx(answer.token_logprobs, abs=1e-4)


def test_a_text_is_scored_with_its_end_token(generator: LocalGenerator) -> None:
    scores = generator.score([ask("1+1="), ask("3")], ["12", ""])
    assert [len(score) for score in scores] == [3, 1]
    assert all(logprob < 0 for score in scores for logprob in score)


def test_scores_do_not_depend_on_the_batch(lively: Path) -> None:
    texts = [chat[0].content[::-1] for chat in CHATS]
    wide = with_settings(lively).score(CHATS, texts)
    narrow = with_settings(lively, batch_size=1).score(CHATS, texts)
    for one, other in zip(wide, narrow, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_no_prompts_give_no_answers(generator: LocalGenerator) -> None:
    assert generator.generate([], GREEDY) == []
    assert generator.score([], []) == []


def test_a_repeated_prompt_gets_different_samples(generator: LocalGenerator) -> None:
    answers = generator.generate([ask("1+1=")] * 8, SAMPLED)
    assert len({answer.token_ids for answer in answers}) == 8


def test_progress_counts_to_the_end(lively: Path) -> None:
    seen: list[tuple[int, int]] = []
    with_settings(lively, batch_size=16).generate(CHATS, Decoding(max_new_tokens=2), lambda *at: seen.append(at))
    assert seen == [(16, 40), (32, 40), (40, 40)]


def test_every_step_of_a_batch_is_reported(loaded: LoadedModel) -> None:
    """A single batch of a large model may take longer than a worker waits for progress."""
    generator = LocalGenerator(loaded, InferenceSettings(), PromptFormat())
    prompts = [generator.prompt(chat, GREEDY) for chat in CHATS[:3]]
    steps: list[None] = []
    answers = decode(
        loaded.model,
        prompts,
        end_ids=frozenset(),
        pad_id=0,
        timeout_s=60.0,
        max_logits=10**6,
        on_step=lambda: steps.append(None),
    )
    assert all(len(answer.token_ids) == GREEDY.max_new_tokens for answer in answers)
    assert len(steps) >= GREEDY.max_new_tokens - 1


def test_an_interrupted_run_resumes_with_the_same_numbers(lively: Path) -> None:
    generator = with_settings(lively, batch_size=16)
    whole = dict(generator.batches(CHATS, GREEDY))
    first, second, third = whole
    done = frozenset({*first, *second[:5]})
    rest = dict(generator.batches(CHATS, GREEDY, done))
    assert list(rest) == [second, third]
    assert said(rest[second]) == said(whole[second])
    assert said(rest[third]) == said(whole[third])


def test_a_stop_string_ends_the_answer_before_itself(generator: LocalGenerator) -> None:
    [free] = generator.generate(CHATS[:1], GREEDY)
    stop = free.text[3:5]
    [cut] = generator.generate(CHATS[:1], GREEDY.model_copy(update={"stop": (stop,)}))
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.token_ids == free.token_ids[: len(cut.token_ids)]
    assert len(cut.token_ids) < len(free.token_ids)


def test_the_context_limits_an_answer(generator: LocalGenerator) -> None:
    prompt = generator.prompt(ask("1" * 1000), Decoding(max_new_tokens=64))
    assert len(prompt.token_ids) + prompt.max_new_tokens == generator.context == 1024


def test_a_prompt_as_long_as_the_context_is_an_error(generator: LocalGenerator) -> None:
    with pytest.raises(GenerationError, match="1024"):
        generator.generate([ask("1" * 1100)], GREEDY)


def test_a_batch_past_its_time_limit_is_an_error(lively: Path) -> None:
    with pytest.raises(GenerationError, match="took longer than 1e-09 s"):
        LocalGenerator.load(lively, limits=BatchLimits(timeout_s=1e-9)).generate(CHATS, GREEDY)


def test_a_closed_generator_has_freed_its_weights(loaded: LoadedModel) -> None:
    LocalGenerator(loaded, InferenceSettings(), PromptFormat()).close()
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 0


@contextmanager
def room_for(loaded: LoadedModel, rows: int) -> Iterator[list[int]]:
    """The model runs out of memory on larger batches; the sizes that it was asked for are noted."""
    sizes: list[int] = []

    def check(_module: object, _args: object, options: dict[str, Any]) -> None:
        sizes.append(len(options["input_ids"]))
        if sizes[-1] > rows:
            raise torch.OutOfMemoryError("no room")

    hook = loaded.model.register_forward_pre_hook(check, with_kwargs=True)
    yield sizes
    hook.remove()


def test_out_of_memory_halves_the_batch_size_for_good(loaded: LoadedModel) -> None:
    generator = LocalGenerator(loaded, InferenceSettings(), PromptFormat())
    expected = generator.generate(CHATS, GREEDY)
    with room_for(loaded, rows=12) as sizes:
        found = generator.generate(CHATS, GREEDY)
        assert [size for size in sizes if size > 12] == [40, 20]
        assert [g.token_ids for g in found] == [g.token_ids for g in expected]
        generator.score(CHATS, ["1"] * 40)
        assert max(sizes[2:]) == 10


@pytest.mark.parametrize(
    ("changed", "most"),
    [({"batch_size": 7}, 7), ({"max_tokens": 480}, 8), ({"max_tokens": 64}, 1)],
)
def test_how_much_is_answered_at_once_is_limited(loaded: LoadedModel, changed: dict[str, int], most: int) -> None:
    settings = InferenceSettings(batch_size=changed.pop("batch_size", 256))
    generator = LocalGenerator(loaded, settings, PromptFormat(), BatchLimits(**changed))
    prompts = [generator.prompt(chat, GREEDY) for chat in CHATS]
    assert max(map(len, generator.plan(prompts))) == most


def test_how_many_logits_are_held_at_once_is_limited(loaded: LoadedModel) -> None:
    answers = ["1" * 100] * len(CHATS)
    asked = []
    for most in (1_000_000, 64_000_000):
        generator = LocalGenerator(loaded, InferenceSettings(), PromptFormat(), BatchLimits(max_logits=most))
        with room_for(loaded, rows=len(CHATS)) as sizes:
            generator.score(CHATS, answers)
        asked.append(max(sizes))
    assert asked == [1_000_000 // (102 * 337), len(CHATS)]


def test_no_memory_for_one_prompt_is_an_error(loaded: LoadedModel) -> None:
    generator = LocalGenerator(loaded, InferenceSettings(), PromptFormat())
    with room_for(loaded, rows=0), pytest.raises(GenerationError, match="out of memory"):
        generator.generate(CHATS, GREEDY)


def test_a_model_that_computes_nan_is_broken(loaded: LoadedModel) -> None:
    generator = LocalGenerator(loaded, InferenceSettings(), PromptFormat())
    loaded.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(BrokenCheckpoint, match="NaN"):
        generator.generate(CHATS, GREEDY)


@dataclass(frozen=True)
class Shouting:
    """A profile with upper-case questions, the stop string `;`, and no even digits."""

    name: str = "shouting"
    version: str = "1"
    banned: ClassVar[str] = "02468"

    def system_prompt(self, base: str) -> str:
        return base

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:  # noqa: ARG002
        turns = [turn.model_copy(update={"content": turn.content.upper()}) for turn in example.messages]
        return example.model_copy(update={"messages": (*turns,)})

    def logits_processors(self, tokenizer: Any) -> list[Any]:
        banned = tokenizer.convert_tokens_to_ids(list(self.banned))

        def ban(_history: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            logits[:, banned] = float("-inf")
            return logits

        return [ban]

    def stop(self) -> tuple[str, ...]:
        return (";",)

    def extract_answer(self, text: str) -> str:
        return text.lower()

    def validate(self, example: Example) -> None:  # noqa: ARG002
        return None


def test_a_profile_applies_to_prompt_and_decoding(loaded: LoadedModel) -> None:
    formatted = LocalGenerator(loaded, InferenceSettings(), PromptFormat(Shouting()))
    bare = LocalGenerator(loaded, InferenceSettings(), PromptFormat())
    prompt = formatted.prompt(ask("abc"), Decoding(stop=("x",)))
    assert prompt.token_ids == bare.prompt(ask("ABC"), Decoding()).token_ids
    assert prompt.decoding.stop == ("x", ";")
    digits = set("".join(g.text for g in formatted.generate(CHATS, SAMPLED)))
    assert digits & set("13579")
    assert not digits & set(Shouting.banned)


def test_a_system_turn_reaches_the_model(loaded: LoadedModel) -> None:
    formatted = LocalGenerator(loaded, InferenceSettings(), PromptFormat(get_profile("plain"), "Answer."))
    bare = LocalGenerator(loaded, InferenceSettings(), PromptFormat())
    with_turn = (Message(role="system", content="Answer."), *ask("1+1="))
    assert formatted.prompt(ask("1+1="), GREEDY) == bare.prompt(with_turn, GREEDY)


def prompts(count: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(9) for _ in range(draw.randint(1, 40))] for _ in range(count)]


def test_every_prompt_is_in_one_batch_and_batches_grow_in_length() -> None:
    rows = prompts(100)
    plan = plan_batches(rows, [8] * 100, max_rows=16, max_tokens=10_000)
    assert sorted(index for batch in plan for index in batch) == list(range(100))
    lengths = [len(rows[index]) for batch in plan for index in batch]
    assert lengths == sorted(lengths)
    assert max(map(len, plan)) == 16


def test_rows_times_padded_width_stays_within_the_tokens() -> None:
    rows, new = prompts(100), [random.Random(1).randint(1, 30) for _ in range(100)]
    plan = plan_batches(rows, new, max_rows=64, max_tokens=300)
    for batch in plan:
        width = max(len(rows[i]) for i in batch) + max(new[i] for i in batch)
        assert len(batch) == 1 or len(batch) * width <= 300
    assert len(plan) > 1


def test_the_order_asked_in_does_not_move_the_boundaries() -> None:
    rows = prompts(50)
    shuffled = rows[::-1]
    options = {"max_rows": 7, "max_tokens": 500}
    one = [[rows[i] for i in batch] for batch in plan_batches(rows, [8] * 50, **options)]
    other = [[shuffled[i] for i in batch] for batch in plan_batches(shuffled, [8] * 50, **options)]
    assert one == other


def test_a_prompt_larger_than_a_batch_has_one_of_its_own() -> None:
    assert plan_batches([[1] * 50, [1]], [8, 8], max_rows=8, max_tokens=20) == ((1,), (0,))


def test_nothing_asked_gives_no_batch() -> None:
    assert plan_batches([], [], max_rows=8, max_tokens=20) == ()


def test_occurrences_count_earlier_equals() -> None:
    assert occurrences([[1, 2], [3], [1, 2], [1, 2]]) == [0, 0, 1, 2]
