"""Grade an example's answer, and tell which item it is: by its family, else by its declared grader."""

from __future__ import annotations

import hashlib
import json

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.tasks import declared, registry
from ratchet.tasks.family import Grade, Problem, TaskFamily

VERSION = "declared@2"
"""Another whenever an answer may be graded otherwise: records of two versions are not compared."""
TEXT_KEY = "text:"
"""How keys of items without a family begin."""


def grade_example(example: Example, answer: str) -> Grade:
    """Grade a text as the answer to the example's question.

    Raises DataError where the example names a family that does not know its question, or has no gold.
    """
    family = registry.find(example.family)
    if family is not None:
        return family.grade(_require_problem(family, example), answer)
    return _declared(example, answer)


def key_and_grade(example: Example, answer: str) -> tuple[str, Grade]:
    """``item_key`` and ``grade_example``, with the question read once."""
    family = registry.find(example.family)
    if family is None:
        return text_key(example), _declared(example, answer)
    problem = _require_problem(family, example)
    return problem.key, family.grade(problem, answer)


def gold(example: Example) -> str:
    """The expected answer: ``metadata.gold``, else the closing assistant turn. Raises DataError where both lack."""
    text = example.metadata.get("gold", example.answer)
    if text is None:
        raise DataError("the example has neither metadata.gold nor a closing assistant turn.")
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def problem_of(example: Example) -> Problem | None:
    """The problem of a known family that the example asks; None where there is no such family."""
    family = registry.find(example.family)
    return None if family is None else _require_problem(family, example)


def item_key(example: Example) -> str:
    """Equal for two examples exactly if they ask the same: the problem's key, else a hash of the normalized prompt."""
    problem = problem_of(example)
    return text_key(example) if problem is None else problem.key


def text_key(example: Example) -> str:
    """The key of free text: case, spacing and punctuation at the ends of a turn do not tell two items apart."""
    turns = [(m.role, " ".join(m.content.casefold().split()).strip(" .?!")) for m in example.prompt]
    said = turns[-1][1] if len(turns) == 1 else json.dumps(turns, ensure_ascii=False)
    return TEXT_KEY + hashlib.sha256(said.encode()).hexdigest()[:32]


def _declared(example: Example, answer: str) -> Grade:
    return declared.grade(_grader(example), gold(example), answer, example.metadata.get("pattern"))


def _grader(example: Example) -> str:
    name = example.metadata.get("grader")
    return str(name) if name is not None else declared.suggest(gold(example))


def _require_problem(family: TaskFamily, example: Example) -> Problem:
    problem = family.parse(example.question) or _regenerated(family, example)
    if problem is None:
        raise DataError(f"family {family.name} does not know the question {example.question[:80]!r}.")
    return problem


def _regenerated(family: TaskFamily, example: Example) -> Problem | None:
    """The problem of the example's level and seed, if that is what the example asks."""
    seed = example.metadata.get("seed")
    if not isinstance(seed, int) or example.level not in family.levels:
        return None
    problem = family.generate(example.level, seed)
    return problem if problem.question == example.question else None
