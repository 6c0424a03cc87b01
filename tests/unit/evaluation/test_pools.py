from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError
from ratchet.evaluation.holdout import HoldOut, hold_out
from ratchet.evaluation.pools import build_pools, rotated_confirm, split_examples
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.tasks import registry
from ratchet.tasks.graders import grade_example, item_key

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
def test_a_small_level_gives_its_share_and_not_an_item_more(seed: int, share: float) -> None:
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
        fresh = rotated_confirm(FAMILIES, [c for c in CELLS if c[1] == 2], SIZES, HELD, version)
        assert len(fresh.items) == SIZES["confirm"]
        assert fresh.version == version
        assert not fresh.keys & used
        assert all(key in HELD for key in fresh.keys)
        used |= fresh.keys


def test_rotation_zero_is_the_first_suite() -> None:
    first = build_pools(FAMILIES, CELLS, SIZES, HELD)["confirm"]
    assert rotated_confirm(FAMILIES, CELLS, SIZES, HELD, 0).id == first.id


def test_a_small_level_rotates_through_all_it_has_before_it_begins_again() -> None:
    cells = [("chain_sum", 1)]
    sizes: dict[Pool, int] = {"probe": 20, "eval": 20, "confirm": 20}
    others = build_pools(FAMILIES, cells, sizes, HELD)
    drawn = [rotated_confirm(FAMILIES, cells, sizes, HELD, version) for version in range(5)]
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


def test_a_file_is_split_the_same_way_for_ever() -> None:
    examples = [example for _, example in read_examples(DATA / "gsm8k_200.jsonl") if isinstance(example, Example)]
    sizes: dict[Pool, int] = {"probe": 10, "eval": 10, "confirm": 10}
    suites, held = split_examples(examples, sizes, HELD)
    backwards, _ = split_examples(examples[::-1], sizes, HELD)
    assert {pool: suite.keys for pool, suite in suites.items()} == {p: s.keys for p, s in backwards.items()}
    assert [len(suites[pool].items) for pool in POOLS] == [10, 10, 10]
    left = [example for example in examples if item_key(example) not in held]
    assert len(left) == len(examples) - 30
    assert not {item_key(example) for example in left} & set().union(*(suite.keys for suite in suites.values()))


def test_a_file_too_small_to_split_is_refused() -> None:
    examples = [Example.ask(f"Where is room {n}?", "here", grader="normalized") for n in range(4)]
    with pytest.raises(DataError, match="too few for three pools"):
        split_examples(examples, SIZES, HELD)
