"""The pools as the settings want them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.errors import DataError, PreconditionFailed
from ratchet.evaluation.build_suites import (
    build_pools,
    build_suites,
    confirm_pool,
    held_out,
    rotate_confirm,
    updated_suites,
)
from ratchet.evaluation.suite import POOLS, HoldOut, Pool, Suite, hold_out
from ratchet.settings.judging import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.graders import grade_example

SMALL = {
    "families": [{"name": "reverse", "levels": [1, 2]}],
    "probe_items": 10,
    "eval_items": 10,
    "confirm_items": 10,
}


@pytest.mark.parametrize("pool", ["probe", "eval", "confirm"])
@pytest.mark.parametrize("items", ["probe_items", "eval_items", "confirm_items"])
def test_each_pool_has_its_own_size(pool: str, items: str) -> None:
    suites = build_suites(SuiteSettings.model_validate({**SMALL, items: 16}))
    sizes = {str(name): len(suite.items) for name, suite in suites.items()}
    assert sizes[pool] == (16 if items.startswith(pool) else 10)


def test_the_tested_families_follow_the_setting() -> None:
    def tested(**changed: object) -> set[tuple[str | None, int]]:
        suites = build_suites(SuiteSettings.model_validate({**SMALL, **changed}))
        return {(item.family, item.level) for suite in suites.values() for item in suite.items}

    assert tested() == {("reverse", 1), ("reverse", 2)}
    assert tested(families=[{"name": "chain_sum", "levels": [3]}]) == {("chain_sum", 3)}


def test_another_seed_holds_out_other_items() -> None:
    ids = [build_suites(SuiteSettings.model_validate({**SMALL, "seed": seed}))["eval"].id for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_pools_take_at_most_the_held_out_share_of_a_finite_level(share: float) -> None:
    suites = SuiteSettings.model_validate(
        {**SMALL, "families": [{"name": "chain_sum", "levels": [1]}], "held_out_share": share}
    )
    family, held = registry.get("chain_sum"), held_out(suites)
    keys = {family.generate(1, seed).key for seed in range(2_000)}
    assert sum(key in held for key in keys) / len(keys) == pytest.approx(share, abs=0.05)


def own_rows(first: int) -> dict[Pool, list[Example]]:
    rows = [Example.ask(f"question {n}", f"answer {n}", family="mine", source="task") for n in range(first, first + 30)]
    return {"probe": rows[:10], "eval": rows[10:20], "confirm": rows[20:]}


def test_held_out_rows_of_tasks_are_in_the_suites_beside_the_items_of_families() -> None:
    suites = build_suites(SuiteSettings.model_validate(SMALL), own_rows(0))
    for suite in suites.values():
        assert Counter(item.family for item in suite.items) == {"reverse": 10, "mine": 10}
    alone = build_suites(SuiteSettings.model_validate({**SMALL, "families": []}), own_rows(0))
    assert {item.family for suite in alone.values() for item in suite.items} == {"mine"}


def test_without_families_and_tasks_nothing_can_be_tested() -> None:
    with pytest.raises(PreconditionFailed, match="ratchet data add FILE"):
        build_suites(SuiteSettings.model_validate({**SMALL, "families": []}))


def test_rows_of_a_new_task_come_into_the_suites_and_the_others_stay() -> None:
    settings = SuiteSettings.model_validate(SMALL)
    first = build_suites(settings, own_rows(0))
    assert updated_suites(settings, first, own_rows(0)) == {}
    both = {pool: [*own_rows(0)[pool], *own_rows(100)[pool]] for pool in POOLS}
    second = updated_suites(settings, first, both)
    for pool in POOLS:
        assert first[pool].keys < second[pool].keys
        assert len(second[pool].items) == 30
        assert second[pool].version == 1


def test_a_task_that_is_measured_differently_replaces_its_rows() -> None:
    settings = SuiteSettings.model_validate(SMALL)
    first = build_suites(settings, own_rows(0))
    by_loss = {
        pool: [row.model_copy(update={"metadata": {**row.metadata, "metric": "loss"}}) for row in rows]
        for pool, rows in own_rows(0).items()
    }
    second = updated_suites(settings, first, by_loss)
    assert {item.metadata.get("metric") for item in second["eval"].items if item.family == "mine"} == {"loss"}
    assert second["eval"].keys == first["eval"].keys


def test_a_rotated_confirm_suite_has_fresh_items_and_the_held_out_rows_of_tasks() -> None:
    settings = SuiteSettings.model_validate(SMALL)
    first = build_suites(settings, own_rows(0))["confirm"]
    second = rotate_confirm(settings, first)
    own = [{item.id for item in suite.items if item.family == "mine"} for suite in (first, second)]
    assert own[0] == own[1] != set()
    assert {i.id for i in first.items}.isdisjoint({i.id for i in second.items} - own[0])
    assert [suite.version for suite in (first, second)] == [0, 1]


def test_a_user_row_that_a_family_also_draws_is_in_the_suite_once() -> None:
    settings = SuiteSettings.model_validate(SMALL)
    fresh = rotate_confirm(settings, build_suites(settings)["confirm"]).items[0]
    mine = fresh.model_copy(update={"metadata": {**fresh.metadata, "source": "mine"}})
    suite = rotate_confirm(settings, Suite.of("confirm", [mine]))
    assert [item.metadata["source"] for item in suite.items if item.metadata["key"] == fresh.metadata["key"]] == [
        "mine"
    ]


FAMILIES = {name: registry.get(name) for name in ("chain_sum", "reverse", "sort_digits")}
CELLS = [(name, level) for name in FAMILIES for level in (1, 2)]
SIZES: dict[Pool, int] = {"probe": 60, "eval": 60, "confirm": 180}
BIG: dict[Pool, int] = {"probe": 600, "eval": 600, "confirm": 1800}
HELD = hold_out(FAMILIES, CELLS, seed=7)
DATA = Path(__file__).parents[2] / "data"


def all_keys(name: str, level: int) -> set[str]:
    family = FAMILIES[name]
    capacity = family.capacity(level)
    assert capacity is not None
    keys = {family.generate(level, seed).key for seed in range(capacity * 12)}
    assert len(keys) >= capacity - 1
    return keys


def test_pools_are_disjoint_whole_and_held_out() -> None:
    pools = build_pools(FAMILIES, CELLS, SIZES, HELD)
    assert {pool: len(suite.items) for pool, suite in pools.items()} == SIZES
    assert len(frozenset().union(*(suite.keys for suite in pools.values()))) == sum(SIZES.values())
    for suite in pools.values():
        assert all(key in HELD for key in suite.keys)
        assert all(grade_example(item, item.answer or "").correct for item in suite.items)


def test_every_level_has_its_part() -> None:
    for pool, suite in build_pools(FAMILIES, CELLS, SIZES, HELD).items():
        by_level = Counter((item.family, item.level) for item in suite.items)
        assert set(by_level.values()) == {SIZES[pool] // len(CELLS)}
        assert set(by_level) == set(CELLS)


def test_a_draw_repeats_and_depends_on_the_seed() -> None:
    ids = {pool: suite.id for pool, suite in build_pools(FAMILIES, CELLS, SIZES, HELD).items()}
    again = build_pools(FAMILIES, CELLS, SIZES, hold_out(FAMILIES, CELLS, seed=7))
    assert {pool: suite.id for pool, suite in again.items()} == ids
    other = build_pools(FAMILIES, CELLS, SIZES, hold_out(FAMILIES, CELLS, seed=8))
    assert not {suite.id for suite in other.values()} & set(ids.values())


@pytest.mark.parametrize(("seed", "share"), [(0, 0.2), (1, 0.1), (7, 0.2)])
def test_a_small_level_gives_exactly_its_share(seed: int, share: float) -> None:
    cells = [("chain_sum", 1), ("sort_digits", 1)]
    held = hold_out(FAMILIES, cells, seed, share)
    for name, level in cells:
        keys = all_keys(name, level)
        limit = int((FAMILIES[name].capacity(level) or 0) * share)
        assert 0.7 * limit < sum(key in held for key in keys) <= limit


def test_pools_share_a_small_level_in_proportion() -> None:
    suites = build_pools(FAMILIES, [("chain_sum", 1)], BIG, HELD)
    counts = [len(suites[pool].items) for pool in POOLS]
    assert sum(counts) <= 100
    assert (counts[0], counts[1]) == (20, 20)
    assert 40 <= counts[2] <= 60


def test_rotated_items_were_never_used() -> None:
    pools = build_pools(FAMILIES, CELLS, SIZES, HELD)
    used = set().union(*(suite.keys for suite in pools.values()))
    for version in (1, 2):
        fresh = confirm_pool(FAMILIES, [c for c in CELLS if c[1] == 2], SIZES, HELD, version)
        assert len(fresh.items) == SIZES["confirm"]
        assert fresh.version == version
        assert not fresh.keys & used
        assert all(key in HELD for key in fresh.keys)
        used |= fresh.keys


def test_rotation_zero_is_the_first_suite() -> None:
    first = build_pools(FAMILIES, CELLS, SIZES, HELD)["confirm"]
    assert confirm_pool(FAMILIES, CELLS, SIZES, HELD, 0).id == first.id


def test_a_small_level_uses_all_items_before_repeating_any() -> None:
    cells = [("chain_sum", 1)]
    sizes: dict[Pool, int] = {"probe": 20, "eval": 20, "confirm": 20}
    others = build_pools(FAMILIES, cells, sizes, HELD)
    drawn = [confirm_pool(FAMILIES, cells, sizes, HELD, version) for version in range(5)]
    assert all(len(suite.items) == 20 for suite in drawn)
    assert not drawn[0].keys & drawn[1].keys
    assert drawn[0].keys & drawn[2].keys | drawn[0].keys & drawn[3].keys
    for suite in drawn:
        assert not suite.keys & (others["probe"].keys | others["eval"].keys)


def test_an_unknown_level_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="chain_sum has no level 9"):
        hold_out(FAMILIES, [("chain_sum", 9)], seed=0)


def test_a_hold_out_reads_back_from_json() -> None:
    held = HELD.with_keys(["text:abc"])
    back = HoldOut.model_validate_json(held.model_dump_json())
    keys = [FAMILIES["reverse"].generate(2, seed).key for seed in range(200)]
    assert [key in back for key in keys] == [key in HELD for key in keys]
    assert "text:abc" in back
    assert "text:abc" not in HELD
    assert 7 not in back
