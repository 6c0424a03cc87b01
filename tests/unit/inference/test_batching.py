from __future__ import annotations

import random

from ratchet.inference.chat_codec import occurrences
from ratchet.inference.local_generator import plan_batches


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
