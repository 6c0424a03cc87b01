from __future__ import annotations

from collections import Counter

import pytest
import torch
from ratchet.inference.generator import Decoding
from ratchet.inference.sampling import Prompt, Sampler, argmax

NO_HISTORY = torch.zeros(1, 0, dtype=torch.long)
LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def prompts(count: int, **decoding: float) -> list[Prompt]:
    return [Prompt((1, 2), 4, Decoding(**decoding), occurrence) for occurrence in range(count)]


def pick(rows: list[Prompt], step: int = 0) -> list[int]:
    sampler = Sampler(rows, (), torch.device("cpu"))
    return sampler.pick(LOGITS.expand(len(rows), -1), NO_HISTORY, step).tolist()


def test_of_equal_logits_the_first_is_the_likeliest() -> None:
    logits = torch.randint(0, 9, (3, 50, 40)).float()
    assert torch.equal(argmax(logits), logits.argmax(-1))
    assert argmax(torch.tensor([[1.0, 3.0, 2.0, 3.0]])).tolist() == [1]


def test_temperature_0_is_greedy() -> None:
    assert set(pick(prompts(5))) == {0}


def test_samples_follow_the_distribution() -> None:
    counts = Counter(pick(prompts(4000, temperature=1.0)))
    assert [counts[token] / 4000 for token in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_temperature_sharpens() -> None:
    counts = Counter(pick(prompts(2000, temperature=0.5)))
    squares = [p * p for p in (0.5, 0.3, 0.15, 0.05)]
    assert counts[0] / 2000 == pytest.approx(squares[0] / sum(squares), abs=0.04)


@pytest.mark.parametrize(("top_p", "reachable"), [(0.4, {0}), (0.5, {0}), (0.79, {0, 1}), (0.9, {0, 1, 2})])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, reachable: set[int]) -> None:
    assert set(pick(prompts(500, temperature=1.0, top_p=top_p))) == reachable


@pytest.mark.parametrize("decoding", [{"top_p": 1e-300}, {"top_p": 1e-45}, {"temperature": 1e-40}])
def test_next_to_nothing_leaves_the_likeliest(decoding: dict[str, float]) -> None:
    rows = [*prompts(50, **{"temperature": 1.0, **decoding}), *prompts(50, temperature=1.0)]
    picked = pick(rows)
    assert set(picked[:50]) == {0}
    assert picked[50:] == pick(rows[50:])


def test_a_draw_belongs_to_its_prompt_and_not_to_its_place() -> None:
    rows = prompts(50, temperature=1.0)
    assert pick(rows)[::-1] == pick(rows[::-1])
    assert pick(rows, step=1) != pick(rows, step=0)


def test_another_seed_gives_other_samples() -> None:
    assert pick(prompts(50, temperature=1.0, seed=1)) != pick(prompts(50, temperature=1.0, seed=2))


def test_rows_of_one_batch_may_differ_and_leave() -> None:
    rows = [*prompts(20, temperature=1.0), *prompts(20)]
    sampler = Sampler(rows, (), torch.device("cpu"))
    whole = sampler.pick(LOGITS.expand(40, -1), NO_HISTORY, 2).tolist()
    sampler.keep(torch.tensor([3, 7, 30]))
    assert sampler.pick(LOGITS.expand(3, -1), NO_HISTORY, 2).tolist() == [whole[3], whole[7], 0]
