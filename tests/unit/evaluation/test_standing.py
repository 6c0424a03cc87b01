"""The pools as the settings want them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.evaluation.standing import first_suites, held_out, next_confirm
from ratchet.evaluation.suite import Suite
from ratchet.settings.suites import SuiteSettings
from ratchet.tasks import registry

SMALL = {
    "families": [{"name": "reverse", "levels": [1, 2]}],
    "probe_items": 10,
    "eval_items": 10,
    "confirm_items": 10,
}


@pytest.mark.parametrize("pool", ["probe", "eval", "confirm"])
@pytest.mark.parametrize("items", ["probe_items", "eval_items", "confirm_items"])
def test_each_pool_has_a_size_of_its_own(pool: str, items: str) -> None:
    suites = first_suites(SuiteSettings.model_validate({**SMALL, items: 16}))
    sizes = {str(name): len(suite.items) for name, suite in suites.items()}
    assert sizes[pool] == (16 if items.startswith(pool) else 10)


def test_what_is_tested_is_set() -> None:
    def tested(**changed: object) -> set[tuple[str | None, int]]:
        suites = first_suites(SuiteSettings.model_validate({**SMALL, **changed}))
        return {(item.family, item.level) for suite in suites.values() for item in suite.items}

    assert tested() == {("reverse", 1), ("reverse", 2)}
    assert tested(families=[{"name": "chain_sum", "levels": [3]}]) == {("chain_sum", 3)}


def test_another_seed_holds_out_other_items() -> None:
    ids = [first_suites(SuiteSettings.model_validate({**SMALL, "seed": seed}))["eval"].id for seed in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_pools_take_at_most_the_share_of_a_finite_level_that_is_set(share: float) -> None:
    suites = SuiteSettings.model_validate(
        {**SMALL, "families": [{"name": "chain_sum", "levels": [1]}], "held_out_share": share}
    )
    family, held = registry.get("chain_sum"), held_out(suites)
    keys = {family.generate(1, seed).key for seed in range(2_000)}
    assert sum(key in held for key in keys) / len(keys) == pytest.approx(share, abs=0.05)


def test_rows_of_the_files_that_are_set_are_tested_on(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(300)))
    suites = [first_suites(SuiteSettings.model_validate({**SMALL, "files": files}))["eval"] for files in ([], [file])]
    asked = [{item.question for item in suite.items if str(item.question).startswith("question ")} for suite in suites]
    assert asked[0] == set() != asked[1]


def test_a_rotated_confirm_suite_has_fresh_items_and_the_users_rows_that_were_held_out_whatever_their_file_has_become(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(300)))
    settings = SuiteSettings.model_validate({**SMALL, "files": [file]})
    first = first_suites(settings)["confirm"]
    file.write_text("".join(Example.ask(f"question {n}", f"answer {n}").to_line() + "\n" for n in range(300, 900)))
    second = next_confirm(settings, first)
    file.unlink()
    third = next_confirm(settings, second)
    own = [{i.id for i in suite.items if str(i.question).startswith("question ")} for suite in (first, second, third)]
    assert own[0] == own[1] == own[2] != set()
    drawn = [{i.id for i in suite.items} - own[0] for suite in (first, second, third)]
    assert drawn[0].isdisjoint(drawn[1])
    assert [suite.version for suite in (first, second, third)] == [0, 1, 2]


def test_a_users_row_that_is_drawn_again_for_a_family_stands_there_once() -> None:
    settings = SuiteSettings.model_validate(SMALL)
    fresh = next_confirm(settings, first_suites(settings)["confirm"]).items[0]
    mine = fresh.model_copy(update={"metadata": {**fresh.metadata, "source": "mine"}})
    suite = next_confirm(settings, Suite.of("confirm", [mine]))
    assert [item.metadata["source"] for item in suite.items if item.metadata["key"] == fresh.metadata["key"]] == [
        "mine"
    ]


def test_a_users_row_that_a_family_asks_as_well_is_no_item_of_a_second_pool(tmp_path: Path) -> None:
    drawn = [item for suite in first_suites(SuiteSettings.model_validate(SMALL)).values() for item in suite.items]
    rows = [*drawn, *(Example.ask(f"question {n}", f"answer {n}") for n in range(300))]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(row.to_line() + "\n" for row in rows))
    suites = first_suites(SuiteSettings.model_validate({**SMALL, "files": [file]}))
    keys = [key for suite in suites.values() for key in suite.keys]
    assert len(keys) == len(set(keys)) > len(drawn)
