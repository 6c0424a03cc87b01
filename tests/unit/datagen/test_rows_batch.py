"""Which rows of users' tasks a batch holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from datagen.rows_batch import LEAST_STEPS, MOST_PASSES, RowBudget, RowPool, RowsPlan, allot, plan_rows
from hypothesis import given
from hypothesis import strategies as st

ROOMY = RowBudget.of(rows_per_step=8, epochs=1, most=12_000)


def places(plan: RowsPlan, pool: str) -> Counter[int]:
    return Counter(row.place for row in plan.rows if row.pool == pool)


def test_a_small_task_is_passed_over_several_times_for_enough_optimizer_steps() -> None:
    plan = plan_rows([RowPool("menus", 60)], [], ROOMY, 0.0, seed=1)
    assert set(places(plan, "menus").values()) == {4}
    assert len(places(plan, "menus")) == 60
    assert len(plan.rows) / 8 >= LEAST_STEPS


def test_a_tiny_task_is_not_learnt_by_heart_within_one_batch() -> None:
    plan = plan_rows([RowPool("menus", 5)], [], ROOMY, 0.0, seed=1)
    assert set(places(plan, "menus").values()) == {MOST_PASSES}


def test_epochs_of_the_trainer_count_towards_the_steps() -> None:
    plan = plan_rows([RowPool("menus", 60)], [], RowBudget.of(8, 4, 12_000), 0.0, seed=1)
    assert set(places(plan, "menus").values()) == {1}


def test_a_large_task_goes_on_where_the_last_batch_ended() -> None:
    task, budget, seen = RowPool("mail", 1_000), RowBudget.of(8, 1, 300), Counter[int]()
    for seed in range(1, 11):
        plan = plan_rows([task], [], budget, 0.0, seed)
        assert plan.taught == {"mail": 300}
        seen += places(plan, "mail")
        task = replace(task, passes=task.passes + 300 / 1_000)
    assert set(seen.values()) == {3}
    assert len(seen) == 1_000


def test_two_passes_have_different_orders() -> None:
    plan = plan_rows([RowPool("menus", 40)], [], ROOMY, 0.0, seed=1)
    first, second = ([row.place for row in plan.rows if row.number == number] for number in (1, 2))
    assert sorted(first) == sorted(second)
    assert first != second


def test_where_not_everything_fits_a_small_task_keeps_more_than_its_share_of_rows() -> None:
    plan = plan_rows([RowPool("mail", 90_000), RowPool("menus", 900)], [], RowBudget.of(8, 1, 1_000), 0.0, seed=1)
    assert sum(plan.taught.values()) == 1_000
    assert 80 <= plan.taught["menus"] <= 100


def test_replay_has_its_share_of_the_batch_and_no_row_of_it_twice() -> None:
    plan = plan_rows([RowPool("menus", 400)], [RowPool("general", 20), RowPool("old", 5_000)], ROOMY, 0.2, seed=3)
    assert plan.replayed == {"general": 20, "old": 80}
    assert sum(plan.replayed.values()) / len(plan.rows) == pytest.approx(0.2)
    assert max(places(plan, "general").values()) == 1


def test_a_batch_without_anything_to_replay_has_none() -> None:
    assert plan_rows([RowPool("menus", 400)], [], ROOMY, 0.2, seed=3).replayed == {}


def test_another_seed_shuffles_the_same_rows_differently() -> None:
    one, other = (plan_rows([RowPool("menus", 400)], [], ROOMY, 0.0, seed) for seed in (1, 2))
    assert sorted(one.rows) == sorted(other.rows)
    assert one.rows != other.rows
    assert one == plan_rows([RowPool("menus", 400)], [], ROOMY, 0.0, 1)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=2), st.integers(0, 50), max_size=5), st.integers(0, 120))
def test_room_is_used_as_far_as_it_is_wanted(wanted: dict[str, int], room: int) -> None:
    given_out = allot(wanted, {name: 1.0 + len(name) for name in wanted}, room)
    assert sum(given_out.values()) == min(room, sum(wanted.values()))
    assert all(0 <= count <= wanted[name] for name, count in given_out.items())
