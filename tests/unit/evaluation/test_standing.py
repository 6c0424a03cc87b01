"""The pools as the settings want them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.evaluation.standing import first_suites, held_out
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
