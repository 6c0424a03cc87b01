"""The search on made-up models: it stays within its budget, off what is excluded, and goes where weakness is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container

import pytest
from miner.mined_items import GradedAnswer
from miner.search import Ask, Search, arms_of, search
from ratchet.data.example import Example
from ratchet.tasks.graders import item_key

from tests.support.examples import made

CELLS = [("chain_sum", 2), ("reverse", 2)]
Knows = Callable[[Example], bool]


def answered(example: Example, is_right: bool) -> GradedAnswer:
    return GradedAnswer(
        example=example,
        key=item_key(example),
        answer="said",
        error=None if is_right else "wrong",
        mean_probability=0.8,
        least_probability=0.8,
    )


def model(knows: Knows, asked: list[Example]) -> Ask:
    def ask(items: list[Example]) -> list[GradedAnswer]:
        asked.extend(items)
        return [answered(item, knows(item)) for item in items]

    return ask


def run(
    knows: Knows,
    budget: int = 200,
    excluded: Container[str] = frozenset(),
    probe: list[GradedAnswer] | None = None,
    before: dict[str, tuple[int, int]] | None = None,
) -> tuple[Search, list[Example]]:
    asked: list[Example] = []
    state = search(
        CELLS,
        probe or [],
        model(knows, asked),
        budget=budget,
        round_items=20,
        excluded=excluded,
        seed=1,
        before=before,
    )
    return state, asked


@pytest.mark.parametrize("budget", [0, 1, 50, 199])
def test_the_budget_is_kept_and_used(budget: int) -> None:
    state, asked = run(lambda _: True, budget)
    assert len(asked) == state.asked == budget


def test_no_question_is_asked_twice_or_is_forbidden() -> None:
    excluded = {item_key(item) for item in made("chain_sum", 2, 300)}
    _, asked = run(lambda item: len(item.question) % 2 == 0, 300, excluded)
    keys = [item_key(item) for item in asked]
    assert len(set(keys)) == len(keys)
    assert not excluded & set(keys)


def test_right_answers_of_low_margin_are_kept_and_draw_no_questions() -> None:
    asked: list[Example] = []

    def ask(items: list[Example]) -> list[GradedAnswer]:
        """Always right on sums, and shaky; wrong on every second of the others."""
        asked.extend(items)
        shaky = [answered(item, True).model_copy(update={"least_probability": 0.1}) for item in items]
        told = [answered(item, number % 2 == 0) for number, item in enumerate(items)]
        return [one if item.family == "chain_sum" else two for item, one, two in zip(items, shaky, told, strict=True)]

    state = search(CELLS, [], ask, budget=300, round_items=20, excluded=set(), seed=1)
    by_family = Counter(item.family for item in asked)
    assert by_family["reverse"] > 2 * by_family["chain_sum"]
    assert {item.category for item in state.found if item.example.family == "chain_sum"} == {"low_margin"}
    assert sum(each.weak for name, each in state.yields.items() if name.startswith("chain_sum")) == 0


def test_the_search_prefers_arms_with_a_high_yield() -> None:
    state, asked = run(lambda item: item.family == "reverse", 400)
    by_family = Counter(item.family for item in asked)
    assert by_family["chain_sum"] > 2 * by_family["reverse"]
    assert {item.example.family for item in state.found} == {"chain_sum"}


def test_yields_of_an_earlier_search_are_a_weak_prior() -> None:
    before = {arm.name: (90, 100) if arm.family == "reverse" else (0, 100) for arm in arms_of(CELLS)}
    _, asked = run(lambda _: True, 20, before=before)
    assert Counter(item.family for item in asked)["reverse"] >= 15
    state, asked = run(lambda item: item.family == "reverse", 500, before=before)
    assert Counter(item.family for item in asked)["chain_sum"] > 150
    assert state.asked == 500


def test_variants_are_made_of_right_answers_and_a_wrong_one_is_unstable() -> None:
    probe = [answered(item, True) for item in made("chain_sum", 2, 40)]
    known = {each.key for each in probe}
    state, _ = run(lambda item: item_key(item) in known, 300, probe=probe)
    unstable = [item for item in state.found if item.category == "unstable"]
    assert unstable
    assert {item.found_by for item in unstable} <= {"swap", "rename"}
    assert {item.parent for item in unstable if item.found_by == "swap"} <= known


def test_near_relatives_are_made_of_weak_items() -> None:
    probe = [answered(item, False) for item in made("reverse", 2, 5)]
    weak = {each.key for each in probe}
    state, _ = run(lambda _: False, 100, probe=probe)
    near = [item for item in state.found if item.found_by == "near"]
    assert weak & {str(item.parent) for item in near}
    assert {item.category for item in near} == {"wrong"}


def test_the_same_seed_gives_the_same_search() -> None:
    first, second = (run(lambda item: len(item.question) % 3 > 0) for _ in range(2))
    assert first == second


def test_a_level_that_is_used_up_ends_the_search() -> None:
    everything = {item_key(item) for item in made("chain_sum", 1, 500)}
    state = search(
        [("chain_sum", 1)],
        [],
        model(lambda _: False, []),
        budget=100,
        round_items=10,
        excluded=everything,
        seed=1,
    )
    assert (state.asked, state.found) == (0, [])


def test_levels_of_no_known_family_are_not_searched() -> None:
    assert arms_of([("essays", 1)]) == []
