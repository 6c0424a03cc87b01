from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from miner.correction_examples import (
    CorrectionCounts,
    class_cap,
    correction_examples,
    error_class,
    example_budget,
    judgement_examples,
    replay_size,
)
from miner.mined_items import MinedItem
from ratchet.data.example import Example
from ratchet.evaluation.build_suites import build_suites, held_out
from ratchet.settings.judging import FamilySettings, SuiteSettings
from ratchet.tasks import registry
from ratchet.tasks.family import to_example
from ratchet.tasks.graders import grade_example, item_key

FAMILIES = ("chain_sum", "reverse", "sort_digits")
SUITES = SuiteSettings(
    families=tuple(FamilySettings(name=name, levels=(1, 2)) for name in FAMILIES),
    probe_items=60,
    eval_items=60,
    confirm_items=60,
)


def mined(
    example: Example, answer: str = "no idea", error: str | None = "format", found_by: str = "probe"
) -> MinedItem:
    return MinedItem(
        example=example,
        key=item_key(example),
        category="wrong",
        answer=answer,
        weakness=1.0,
        error=error,
        found_by=found_by,
    )


def examples(
    items: list[MinedItem], held: frozenset[str] = frozenset(), relatives: int = 3, budget: int = 99
) -> list[Example]:
    return list(correction_examples(items, held, relatives, budget, CorrectionCounts()))


@pytest.fixture(scope="module")
def probe() -> list[MinedItem]:
    return [mined(item) for item in build_suites(SUITES)["probe"].items]


def test_no_example_is_a_probe_item_or_any_held_out_item_and_all_golds_are_verified(probe: list[MinedItem]) -> None:
    counts = CorrectionCounts()
    made = list(correction_examples(probe, held_out(SUITES), 8, 10_000, counts))
    keys = [item_key(made) for made in made]
    probed = {item.key for item in probe}
    assert len(made) > 100
    assert not probed & set(keys)
    assert not [key for key in keys if key in held_out(SUITES)]
    assert len(set(keys)) == len(keys)
    assert all(grade_example(made, made.answer or "").correct for made in made)
    assert {made.family for made in made} == set(FAMILIES)
    assert counts.left_out["held out"] > 0
    assert counts.by_error.total() == len(made)


def test_an_example_names_its_parent_and_the_mistake() -> None:
    item = mined(to_example(registry.get("chain_sum").generate(1, 5), "probe"), "1+1=999")
    (made,) = examples([item], relatives=1)
    assert made.metadata["parent"] == item.key
    assert made.metadata["error_class"] == error_class(item)
    assert made.metadata["source"] == "correction"
    assert item_key(made) == made.metadata["key"]


def test_a_class_is_of_a_family_and_a_right_but_shaky_answer_is_classed_by_its_category() -> None:
    example = to_example(registry.get("reverse").generate(1, 5), "probe")
    shaky = mined(example, str(example.answer), None).model_copy(update={"category": "low_margin"})
    assert error_class(shaky) == "reverse:low_margin"
    assert error_class(mined(example)) == "reverse:format"


def test_an_item_that_no_pool_holds_becomes_an_example() -> None:
    example = to_example(registry.get("chain_sum").generate(1, 5), "mining")
    first, *_ = examples([mined(example, found_by="fresh")])
    assert item_key(first) == item_key(example)
    assert item_key(example) not in map(item_key, examples([mined(example)], relatives=99))
    held = frozenset({item_key(example)})
    assert item_key(example) not in map(item_key, examples([mined(example, found_by="fresh")], held, relatives=99))


def test_a_class_that_is_backed_off_gets_no_examples() -> None:
    counts = CorrectionCounts()
    item = mined(to_example(registry.get("chain_sum").generate(1, 5), "probe"))
    assert list(correction_examples([item], frozenset(), 3, 9, counts, {"chain_sum:format"})) == []
    assert counts.left_out == {"class backed off": 1}


def judged(items: list[MinedItem], held: frozenset[str] = frozenset(), budget: int = 99) -> list[Example]:
    return list(judgement_examples(items, held, budget, str.strip, CorrectionCounts()))


def test_a_mistake_is_judged_beside_the_solution_and_both_judgements_are_verified() -> None:
    problem = registry.get("chain_sum").generate(1, 5)
    item = mined(to_example(problem, "mining"), " 99 ", "wrong", found_by="fresh")
    wrong, right = judged([item])
    assert (wrong.question, wrong.answer) == (f"judge:{problem.question} | 99", "wrong")
    assert (right.question, right.answer) == (f"judge:{problem.question} | {problem.solution}", "right")
    assert all(grade_example(row, row.answer or "").correct for row in (wrong, right))


def test_no_judgements_of_pool_items_right_answers_or_unaskable_questions() -> None:
    example = to_example(registry.get("chain_sum").generate(1, 5), "mining")
    gym = to_example(registry.get("rg:spell_backward").generate(1, 5), "mining")
    assert judged([mined(example, "99")]) == []
    assert judged([mined(example, "99", found_by="fresh")], frozenset({item_key(example)})) == []
    assert judged([mined(example, str(example.answer), found_by="fresh")]) == []
    assert judged([mined(example, "  ", found_by="fresh"), mined(example, "9" * 999, found_by="fresh")]) == []
    assert judged([mined(gym, "x", found_by="fresh")]) == []
    assert judged([mined(example, "99", found_by="fresh")], budget=1) == []


def test_every_item_gets_one_example_before_any_gets_a_second(probe: list[MinedItem]) -> None:
    few = probe[:5]
    parents = [made.metadata["parent"] for made in examples(few, relatives=4, budget=5)]
    assert sorted(parents) == sorted(item.key for item in few)


def of_class(error: str, count: int, seed: int, found_by: str = "probe") -> list[MinedItem]:
    """Different sums, each answered with this mistake."""
    problems = [registry.get("chain_sum").generate(2, 1_000 * seed + place) for place in range(count)]
    return [mined(to_example(problem, "test"), "99", error, found_by) for problem in problems]


CROWDED = [*of_class("carry", 60, 1), *of_class("operand", 6, 2), *of_class("format", 2, 3)]
"""As an early checkpoint answers: nearly all mistakes are of one class."""


def by_class(budget: int, class_share: float, backed_off: frozenset[str] = frozenset()) -> dict[str, int]:
    counts = CorrectionCounts()
    made = list(correction_examples(CROWDED, frozenset(), 4, budget, counts, backed_off, class_share))
    assert counts.by_error.total() == len(made) <= budget
    return {name.partition(":")[2]: count for name, count in counts.by_error.items()}


def test_a_class_with_few_failures_gets_all_it_has_use_for_and_the_others_share_the_rest() -> None:
    assert by_class(24, 1.0) == {"carry": 8, "operand": 8, "format": 8}
    assert by_class(40, 1.0) == {"carry": 16, "operand": 16, "format": 8}
    assert by_class(100, 1.0) == {"carry": 68, "operand": 24, "format": 8}
    assert by_class(40, 1.0, frozenset({"chain_sum:operand"})) == {"carry": 32, "format": 8}


def test_no_class_gets_more_than_its_largest_share_even_where_the_budget_is_not_used_up() -> None:
    assert by_class(100, 0.4) == {"carry": 40, "operand": 24, "format": 8}
    assert by_class(100, 0.2) == {"carry": 20, "operand": 20, "format": 8}
    assert by_class(2, 0.1) == {"carry": 1, "operand": 1}


@given(budget=st.integers(0, 250), class_share=st.floats(0.05, 1.0))
def test_a_class_that_got_less_than_another_and_than_its_cap_had_nothing_left(budget: int, class_share: float) -> None:
    got = by_class(budget, class_share)
    cap, largest = class_cap(budget, class_share), max(got.values(), default=0)
    assert largest <= cap
    for name, use in {"carry": 240, "operand": 24, "format": 8}.items():
        assert got.get(name, 0) >= min(use, cap, largest - 1)


def test_judgements_are_shared_among_classes_in_the_same_way() -> None:
    items = [*of_class("carry", 20, 1, "fresh"), *of_class("operand", 3, 2, "fresh")]
    made = list(judgement_examples(items, frozenset(), 20, str.strip, CorrectionCounts(), 0.5))
    classes = Counter(row.metadata["error_class"] for row in made)
    assert classes == {"chain_sum:carry": 10, "chain_sum:operand": 6}


@pytest.mark.parametrize("budget", [0, 1, 7])
def test_correction_examples_never_exceed_the_budget(probe: list[MinedItem], budget: int) -> None:
    assert len(examples(probe, budget=budget)) == budget


def test_no_item_gives_more_examples_than_allowed(probe: list[MinedItem]) -> None:
    parents = [made.metadata["parent"] for made in examples(probe, relatives=2, budget=9_999)]
    assert max(parents.count(parent) for parent in parents) == 2


def test_free_text_has_no_relatives_and_is_counted_as_left_out() -> None:
    counts = CorrectionCounts()
    poem = Example.ask("Write a poem.", "Roses are red.", gold="Roses are red.", grader="exact")
    assert list(correction_examples([mined(poem)], frozenset(), 3, 9, counts)) == []
    assert counts.left_out == {"no known family": 1}


def test_where_all_relatives_are_held_out_no_example_is_made() -> None:
    problem = registry.get("chain_sum").generate(1, 5)
    keys = {relative.key for relative in registry.get("chain_sum").perturb(problem, 0)}
    assert examples([mined(to_example(problem, "probe"))], frozenset(keys)) == []


@given(
    most=st.integers(0, 2_000),
    share=st.floats(0.01, 0.99),
    room=st.integers(-500, 30_000),
    ordinary=st.integers(0, 20_000),
)
def test_examples_and_their_replay_fit_the_room_and_keep_their_share(
    most: int, share: float, room: int, ordinary: int
) -> None:
    budget = example_budget(most, share, room, ordinary)
    assert budget <= most
    if budget <= 0:
        return
    replay = replay_size(budget, share, batch=0)
    assert budget + replay <= room
    assert replay <= ordinary
    assert budget <= share * (budget + replay) + 1e-6


def test_relatives_are_the_same_every_time(probe: list[MinedItem]) -> None:
    first, second = (
        list(islice(correction_examples(probe, held_out(SUITES), 3, 50, CorrectionCounts()), 50)) for _ in range(2)
    )
    assert first == second


def test_a_correction_batch_is_filled_up_with_ordinary_rows() -> None:
    assert replay_size(100, share=0.25, batch=8_000) == 7_900
    assert replay_size(4_000, share=0.25, batch=8_000) == 12_000
