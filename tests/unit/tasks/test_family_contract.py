"""The contract of every registered family. Plug-in authors can run these tests on their own family."""

from __future__ import annotations

from itertools import islice

import pytest
from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.tasks import registry
from ratchet.tasks.family import TaskFamily, to_example
from ratchet.tasks.graders import grade_example, item_key, problem_of

GYM = ["rg:spell_backward", "rg:chain_sum", "rg:base_conversion"]
NAMES = [name for name in registry.known() if ":" not in name] + GYM
SEEDS = range(12)


@pytest.fixture(params=NAMES)
def family(request: pytest.FixtureRequest) -> TaskFamily:
    return registry.get(request.param)


def test_is_a_family_of_its_name(family: TaskFamily) -> None:
    assert isinstance(family, TaskFamily)
    assert registry.get(family.name) is family
    assert family.levels == tuple(range(1, len(family.levels) + 1))


def test_level_and_seed_make_one_problem(family: TaskFamily) -> None:
    for level in family.levels:
        problems = [family.generate(level, seed) for seed in SEEDS]
        assert problems == [family.generate(level, seed) for seed in SEEDS]
        assert {(problem.family, problem.level) for problem in problems} == {(family.name, level)}
        assert len({problem.key for problem in problems}) > 1


def test_unknown_level_is_refused(family: TaskFamily) -> None:
    with pytest.raises(DataError, match="levels 1 to"):
        family.generate(family.levels[-1] + 1, 0)


def test_solution_and_gold_are_graded_correct(family: TaskFamily) -> None:
    for level in family.levels:
        for seed in SEEDS:
            problem = family.generate(level, seed)
            assert family.grade(problem, problem.solution).correct
            assert family.grade(problem, f" {problem.gold}\n").correct


@pytest.mark.parametrize("answer", ["", "   ", "Error: out of memory", '{"foo":1}', "I do not know."])
def test_other_texts_are_not_correct_and_say_why(family: TaskFamily, answer: str) -> None:
    for level in family.levels:
        grade = family.grade(family.generate(level, 1), answer)
        assert not grade.correct
        assert grade.error in family.errors


def test_another_problems_solution_is_not_correct(family: TaskFamily) -> None:
    for level in family.levels:
        problem = family.generate(level, 1)
        others = (family.generate(level, seed) for seed in range(2, 30))
        other = next(other for other in others if other.gold != problem.gold)
        grade = family.grade(problem, other.solution)
        assert not grade.correct
        assert grade.extracted == other.gold


def test_an_example_leads_back_to_its_problem(family: TaskFamily) -> None:
    for level in family.levels:
        problem = family.generate(level, 3)
        example = Example.model_validate_json(to_example(problem, "test").to_line())
        assert problem_of(example) == problem
        assert item_key(example) == problem.key == example.metadata["key"]
        assert grade_example(example, problem.solution).correct


def test_a_foreign_question_is_not_parsed(family: TaskFamily) -> None:
    stranger = Example.ask("Who wrote Faust?", "Goethe", family=family.name, level=1)
    assert family.parse(stranger.question) is None
    with pytest.raises(DataError, match="does not know the question"):
        grade_example(stranger, "Goethe")


def test_different_problems_have_different_keys(family: TaskFamily) -> None:
    for level in family.levels:
        by_question = {p.question: p.key for p in (family.generate(level, seed) for seed in range(60))}
        assert len(set(by_question.values())) == len(by_question)


def test_relatives_are_others_of_the_level_with_correct_gold(family: TaskFamily) -> None:
    for level in family.levels:
        problem = family.generate(level, 5)
        relatives = list(islice(family.perturb(problem, seed=1), 30))
        keys = [relative.key for relative in relatives]
        assert relatives == list(islice(family.perturb(problem, seed=1), 30))
        assert relatives
        assert len(set(keys)) == len(keys)
        assert problem.key not in keys
        for relative in relatives:
            assert relative.level == level
            assert family.grade(relative, relative.solution).correct


def test_a_finite_level_has_its_declared_number_of_items(family: TaskFamily) -> None:
    small = [level for level in family.levels if (family.capacity(level) or 10**9) <= 1000]
    for level in small:
        capacity = family.capacity(level)
        assert capacity is not None
        keys = {family.generate(level, seed).key for seed in range(capacity * 20)}
        assert len(keys) == capacity


def test_a_variant_asks_the_same_in_another_way(family: TaskFamily) -> None:
    for level in family.levels:
        problem = family.generate(level, 5)
        variants = list(islice(family.variants(problem, seed=1), 30))
        assert variants == list(islice(family.variants(problem, seed=1), 30))
        assert {variant.kind for variant in variants} <= set(family.variant_kinds)
        keys = [variant.problem.key for variant in variants]
        assert len(set(keys)) == len(keys)
        assert problem.key not in keys
        for variant in variants:
            assert variant.problem.level == level
            assert family.grade(variant.problem, variant.problem.solution).correct


def test_every_kind_of_variant_is_found_somewhere(family: TaskFamily) -> None:
    problems = (family.generate(level, seed) for level in family.levels for seed in SEEDS)
    found = {variant.kind for problem in problems for variant in family.variants(problem, 0)}
    assert found == set(family.variant_kinds)


def test_a_problem_has_only_declared_traits(family: TaskFamily) -> None:
    problems = [family.generate(level, seed) for level in family.levels for seed in range(30)]
    assert all(family.traits(problem) <= set(family.features) for problem in problems)
    assert all(family.traits(problem) for problem in problems)
