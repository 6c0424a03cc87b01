"""Which rows of a task are held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from ratchet.data.example import Example, Message
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.split import split_rows
from ratchet.user_tasks.task import Task

DATA = Path(__file__).parents[2] / "data"
BABI = Task(name="babi", metric="accuracy")


def babi() -> list[Example]:
    found = (row for _, row in read_examples(DATA / "babi_qa1_100.jsonl"))
    return [BABI.labelled(row) for row in found if isinstance(row, Example)]


def always(size: int) -> Callable[[int], Mapping[Pool, int]]:
    return lambda _rows: dict.fromkeys(POOLS, size)


def keys(rows: object) -> set[str]:
    return {text_key(row) for row in rows}  # type: ignore[attr-defined]


def test_the_pools_and_the_training_rows_are_disjoint_and_complete() -> None:
    rows = babi()
    split = split_rows(rows, always(10), seed=1)
    pools = [keys(split.held_out[pool]) for pool in POOLS]
    trained = keys(split.training_rows(rows))
    assert [len(pool) for pool in pools] == [10, 10, 10]
    assert len(set().union(*pools)) == 30
    assert not trained & set().union(*pools)
    near = [split.side(row) for row in rows].count("near")
    assert len(trained) + 30 + near + split.repeated == len(rows)


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    rows = babi()
    first, backwards = split_rows(rows, always(8), seed=1), split_rows(rows[::-1], always(8), seed=1)
    other = split_rows(rows, always(8), seed=2)
    assert {pool: keys(items) for pool, items in first.held_out.items()} == {
        pool: keys(items) for pool, items in backwards.held_out.items()
    }
    assert keys(first.held_out["confirm"]) != keys(other.held_out["confirm"])


def story(n: int, ending: str = "") -> Example:
    words = " ".join(f"word{(n * 37 + place) % 991}" for place in range(40))
    return Example.ask(f"{words}{ending}", f"answer {n}", family="mine")


def test_a_row_that_nearly_repeats_a_held_out_one_is_neither_trained_nor_tested_on() -> None:
    rows = [story(n) for n in range(30)] + [story(n, " indeed") for n in range(30)]
    split = split_rows(rows, always(4), seed=3)
    trained = list(split.training_rows(rows))
    held = {item.answer for items in split.held_out.values() for item in items}
    assert len(held) == 12
    assert not held & {row.answer for row in trained}
    assert [split.side(row) for row in rows].count("near") == 12
    assert len(trained) == 60 - 24


def test_repeated_questions_count_once_and_stay_on_one_side() -> None:
    rows = [story(n) for n in range(20) for _ in range(3)]
    split = split_rows(rows, always(2), seed=3)
    assert (split.rows, split.repeated) == (20, 40)
    assert len(list(split.training_rows(rows))) == 3 * 14


def test_a_row_whose_own_answer_its_grader_refuses_is_not_held_out() -> None:
    rows = [story(n).model_copy(update={"metadata": {"grader": "json"}}) for n in range(20)]
    with pytest.raises(DataError, match="20 different rows are too few"):
        split_rows(rows, always(2), seed=3)


def test_more_rows_of_a_task_add_to_its_pools_and_move_none() -> None:
    rows = babi()
    first = split_rows(rows[:50], always(5), seed=1)
    trained = keys(first.training_rows(rows[:50]))
    taken = dict.fromkeys(trained, "babi")
    second = split_rows(rows, always(9), seed=1, held_before=first.held_out, taken=taken, rows_before=first.rows)
    for pool in POOLS:
        assert keys(first.held_out[pool]) <= keys(second.held_out[pool])
        assert len(second.held_out[pool]) == 9
        assert not keys(second.held_out[pool]) & trained
    assert second.rows == len(keys(rows))


def test_rows_that_share_a_long_instruction_are_different_rows() -> None:
    system = "You are a helpful assistant of a large library. " * 2 + "Answer in one word, and never guess."
    rows = [
        Example(
            messages=(
                Message(role="system", content=system),
                Message(role="user", content=f"Who wrote {title}?"),
                Message(role="assistant", content=title[::-1]),
            ),
            metadata={"family": "mine"},
        )
        for title in (f"{chr(97 + n % 26)}{chr(97 + n // 26)}nda" for n in range(60))
    ]
    split = split_rows(rows, always(10), seed=1)
    assert [split.side(row) for row in rows].count("training") == 30
    later = split_rows(rows[:20], always(5), seed=1, trained_before=[("other", row) for row in rows[20:]])
    assert not later.known
