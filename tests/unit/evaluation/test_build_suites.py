"""The pools as the settings want them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError
from ratchet.evaluation.build_suites import (
    build_pools,
    build_suites,
    confirm_pool,
    held_out,
    rotate_confirm,
    split_examples,
)
from ratchet.evaluation.suite import POOLS, HoldOut, Pool, Suite, hold_out
from ratchet.settings.judging import SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.graders import grade_example, item_key

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


def test_rows_of_the_configured_files_are_in_the_suites(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(300)))
    suites = [build_suites(SuiteSettings.model_validate({**SMALL, "files": files}))["eval"] for files in ([], [file])]
    asked = [{item.question for item in suite.items if str(item.question).startswith("question ")} for suite in suites]
    assert asked[0] == set() != asked[1]


def test_a_rotated_confirm_suite_has_fresh_items_and_the_originally_held_out_user_rows(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(300)))
    settings = SuiteSettings.model_validate({**SMALL, "files": [file]})
    first = build_suites(settings)["confirm"]
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(300, 900)))
    second = rotate_confirm(settings, first)
    file.unlink()
    third = rotate_confirm(settings, second)
    own = [{i.id for i in suite.items if str(i.question).startswith("question ")} for suite in (first, second, third)]
    assert own[0] == own[1] == own[2] != set()
    drawn = [{i.id for i in suite.items} - own[0] for suite in (first, second, third)]
    assert drawn[0].isdisjoint(drawn[1])
    assert [suite.version for suite in (first, second, third)] == [0, 1, 2]


def test_a_user_row_that_a_family_also_draws_is_in_the_suite_once() -> None:
    settings = SuiteSettings.model_validate(SMALL)
    fresh = rotate_confirm(settings, build_suites(settings)["confirm"]).items[0]
    mine = fresh.model_copy(update={"metadata": {**fresh.metadata, "source": "mine"}})
    suite = rotate_confirm(settings, Suite.of("confirm", [mine]))
    assert [item.metadata["source"] for item in suite.items if item.metadata["key"] == fresh.metadata["key"]] == [
        "mine"
    ]


def test_a_user_row_of_a_known_family_is_in_one_pool_only(tmp_path: Path) -> None:
    drawn = [item for suite in build_suites(SuiteSettings.model_validate(SMALL)).values() for item in suite.items]
    rows = [*drawn, *(Example.ask(f"question {n}", f"answer {n}") for n in range(300))]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(row.to_line() + "\n" for row in rows))
    suites = build_suites(SuiteSettings.model_validate({**SMALL, "files": [file]}))
    keys = [key for suite in suites.values() for key in suite.keys]
    assert len(keys) == len(set(keys)) > len(drawn)


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
