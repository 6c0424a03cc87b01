"""Drafts save time and change nothing: neither a right one, nor a wrong one, nor one that is right for a while."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ratchet.data.example import Message
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.generator import Chat, Decoding, Generation, Reply
from ratchet.inference.local_generator import LocalGenerator
from ratchet.inference.model_loading import LoadedModel, load_model, pick_hardware
from ratchet.inference.prefill import DraftBackoff
from ratchet.inference.prompt_format import PromptFormat
from ratchet.profiles.profile import get_profile
from ratchet.settings.serving import InferenceSettings

GREEDY = Decoding(max_new_tokens=16)
SAMPLED = Decoding(max_new_tokens=16, temperature=1.0, top_p=0.95, seed=5)
STOPPED = Decoding(max_new_tokens=16, stop=("a", "1"))


def some_chats(count: int) -> list[Chat]:
    draw = random.Random(0)
    words = ["".join(draw.choice("abc123 +=") for _ in range(draw.randint(1, 30))) for _ in range(count)]
    return [(Message(role="user", content=word),) for word in words]


CHATS = some_chats(14)


@pytest.fixture
def loaded(lively: Path) -> LoadedModel:
    return load_model(lively, pick_hardware(InferenceSettings()))


def formatted(loaded: LoadedModel, profile: str) -> LocalGenerator:
    return LocalGenerator(loaded, InferenceSettings(), PromptFormat(get_profile(profile)))


def answer(
    generator: LocalGenerator,
    decoding: Decoding,
    drafts: Sequence[Reply | None] | None = None,
    *,
    score_drafts: bool = True,
) -> list[Generation]:
    answered = dict(
        pair
        for batch, found in generator.batches(CHATS, decoding, drafts=drafts, score_drafts=score_drafts)
        for pair in zip(batch, found, strict=True)
    )
    return [answered[index] for index in range(len(CHATS))]


def drafts_of(plain: Sequence[Generation]) -> dict[str, list[Reply | None]]:
    right: list[Reply | None] = [generation.token_ids for generation in plain]
    astray = [(*generation.token_ids[: n % 7], 40, 41, 42, 43) for n, generation in enumerate(plain)]
    some: list[Reply | None] = [None if n % 3 else generation.token_ids for n, generation in enumerate(plain)]
    return {"right": right, "wrong": ["never said"] * len(plain), "right for a while": list(astray), "some": some}


@contextmanager
def counted_passes(loaded: LoadedModel) -> Iterator[list[int]]:
    """Rows of every forward pass."""
    rows: list[int] = []
    hook = loaded.model.register_forward_pre_hook(
        lambda _module, _args, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    yield rows
    hook.remove()


@pytest.mark.parametrize("profile", ["plain", "emoji_think"])
@pytest.mark.parametrize("decoding", [GREEDY, SAMPLED, STOPPED], ids=["greedy", "sampled", "stopped"])
def test_no_draft_changes_an_answer(loaded: LoadedModel, profile: str, decoding: Decoding) -> None:
    generator = formatted(loaded, profile)
    plain = answer(generator, decoding)
    for name, drafts in drafts_of(plain).items():
        found = answer(generator, decoding, drafts)
        for one, other in zip(found, plain, strict=True):
            assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason), (
                name
            )
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def test_a_right_draft_takes_one_forward_pass(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    plain = answer(generator, GREEDY)
    with counted_passes(loaded) as rows:
        answer(generator, GREEDY, [generation.token_ids for generation in plain])
    assert rows == [len(CHATS)]


def test_the_same_drafts_give_the_same_bits_again(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    drafts: list[Reply | None] = [chat[0].content for chat in CHATS]
    one, other = (answer(generator, GREEDY, drafts) for _ in range(2))
    assert [g.model_dump(exclude={"latency_s"}) for g in one] == [g.model_dump(exclude={"latency_s"}) for g in other]


def test_a_draft_is_scored_as_it_would_be_by_itself(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    drafts = [chat[0].content[::-1] for chat in CHATS]
    scores = generator.score(CHATS, drafts)
    for generation, score in zip(answer(generator, GREEDY, drafts), scores, strict=True):
        assert generation.draft_logprobs == pytest.approx(score, abs=1e-4)


def test_a_draft_beyond_the_context_is_dropped(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    found = answer(generator, GREEDY, ["1" * 1023, *[None] * (len(CHATS) - 1)])
    assert [generation.token_ids for generation in found] == [g.token_ids for g in answer(generator, GREEDY)]
    assert {generation.draft_logprobs for generation in found} == {()}


def test_long_drafts_share_a_pass_as_far_as_the_cache_reaches(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    with counted_passes(loaded) as rows:
        answer(generator, Decoding(max_new_tokens=1), ["1" * 300] * len(CHATS))
    assert sum(rows) == len(CHATS)
    assert max(rows) == 2048 // 305


def passes_with_their_drafts(pays: Sequence[bool]) -> list[bool]:
    backoff, asked = DraftBackoff(), []
    for answer in pays:
        asked.append(backoff.wants_drafts())
        if asked[-1]:
            backoff.record(5 if answer else 4, 10)
    return asked


def test_accepted_drafts_are_always_used() -> None:
    assert all(passes_with_their_drafts([True] * 20))


def test_rejected_drafts_are_skipped_longer_and_longer_until_one_is_accepted() -> None:
    asked = passes_with_their_drafts([False] * 30)
    assert [place for place, is_asked in enumerate(asked) if is_asked] == [0, 2, 5, 10, 19, 28]
    assert passes_with_their_drafts([False, False, True, True, False, False]) == [True, False, True, True, True, False]


def test_rejected_drafts_are_skipped_where_their_scores_are_not_needed(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    wrong: list[Reply | None] = ["1" * 300] * len(CHATS)
    found = dict(enumerate(answer(generator, GREEDY, wrong, score_drafts=False)))
    scored = [row for row, generation in found.items() if generation.draft_logprobs]
    assert 0 < len(scored) < len(CHATS)
    plain = answer(generator, GREEDY)
    assert [generation.token_ids for generation in found.values()] == [each.token_ids for each in plain]
    again = answer(generator, GREEDY, wrong, score_drafts=False)
    assert [g.model_dump(exclude={"latency_s"}) for g in found.values()] == [
        g.model_dump(exclude={"latency_s"}) for g in again
    ]


def test_a_stop_string_in_a_draft_ends_the_row(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    plain = answer(generator, GREEDY)
    stop = next(text for text in (generation.text[3:5] for generation in plain) if len(text) == 2)
    stopping = GREEDY.model_copy(update={"stop": (stop,)})
    found = answer(generator, stopping, [generation.token_ids for generation in plain])
    assert [generation.token_ids for generation in found] == [each.token_ids for each in answer(generator, stopping)]
    assert any(len(short.token_ids) < len(long.token_ids) for short, long in zip(found, plain, strict=True))


def test_a_model_that_computes_nan_is_broken(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    loaded.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(BrokenCheckpoint, match="NaN"):
        answer(generator, GREEDY, ["1"] * len(CHATS))


def test_without_drafts_nothing_is_verified(loaded: LoadedModel) -> None:
    generator = formatted(loaded, "plain")
    with counted_passes(loaded) as rows, torch.inference_mode():
        answer(generator, Decoding(max_new_tokens=1), [None] * len(CHATS))
    assert rows == [len(CHATS)]
