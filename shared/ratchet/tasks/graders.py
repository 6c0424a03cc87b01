"""Grades an example's answer, by its family, else by its declared grader, and computes the key of its question.

Declared graders are for data with a gold answer but without a family:

================  =======================================================================================
``exact``         the same text, except for white space at the ends
``normalized``    the same text after NFC, case folding, single spaces, and without punctuation at the ends
``numeric``       the same number (see ``numerals``): integers exactly, others to 1 part in 10⁶ of the gold
``json``          the same JSON value, object keys in any order; a code fence or text around it is removed
``prefix``        the same value of two expressions in prefix form, such as ``(add 2 3)`` and ``5``
``regex``         the same text in the first match of ``metadata.pattern`` (its group 1, else the whole match)
================  =======================================================================================

An empty gold accepts no answer, and an empty answer is never right.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from ratchet.data.example import Example
from ratchet.errors import DataError, MalformedExpression, UndefinedValue, UnknownPlugin
from ratchet.profiles.regime3.grammar import evaluate, parse, show
from ratchet.tasks import registry
from ratchet.tasks.family import Grade, Problem, TaskFamily
from ratchet.tasks.numerals import is_single_number, read_number
from ratchet.tasks.numerals import show as show_number

VERSION = "declared@2"
"""Must be increased with every change that may alter a grade: records of different versions are not compared."""
TEXT_KEY = "text:"
"""Prefix of the keys of items without a family."""

Reading = Any
"""The value that a grader reads from a text; None if there is none."""

PATTERN_LIMIT = 200
ANSWER_LIMIT = 20_000
"""Only this much of a text is searched, since a pattern's time can grow with the square of its length, or worse."""

ERROR_TEXT: Final = re.compile(r"\s*(?:error|exception|traceback)\b\s*(?::|\()", re.IGNORECASE)
"""The beginning of a program's error message, which is never an answer."""

_FENCE = re.compile(r"```(?:json)?[ \t\r]{0,9}\n(.*?)```", re.DOTALL)
_EDGES = " .,;:!?\"'`*()[]{}"
_TOLERANCE = Fraction(1, 1_000_000)
_LARGEST_EXPONENT = 1_000


def grade_example(example: Example, answer: str) -> Grade:
    """Grade a text as the answer to the example's question.

    Raises DataError if the example's family does not know its question, or it has no gold answer.
    """
    family = registry.find(example.family)
    if family is not None:
        return family.grade(_require_problem(family, example), answer)
    return _grade_by_name(example, answer)


def key_and_grade(example: Example, answer: str) -> tuple[str, Grade]:
    """``item_key`` and ``grade_example``, parsing the question only once."""
    family = registry.find(example.family)
    if family is None:
        return text_key(example), _grade_by_name(example, answer)
    problem = _require_problem(family, example)
    return problem.key, family.grade(problem, answer)


def gold(example: Example) -> str:
    """The expected answer: ``metadata.gold``, else the closing assistant turn. Raises DataError if there is neither."""
    text = example.metadata.get("gold", example.answer)
    if text is None:
        raise DataError("the example has neither metadata.gold nor a closing assistant turn.")
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)


def problem_of(example: Example) -> Problem | None:
    """The problem that the example asks; None if its family is not a known one."""
    family = registry.find(example.family)
    return None if family is None else _require_problem(family, example)


def item_key(example: Example) -> str:
    """A key of the question, the same for two examples that ask the same: the problem's key, else a hash of the
    normalized prompt."""
    problem = problem_of(example)
    return text_key(example) if problem is None else problem.key


def text_key(example: Example) -> str:
    """The key of free text. It ignores case, spacing, and punctuation at the ends of a turn."""
    turns = [(m.role, " ".join(m.content.casefold().split()).strip(" .?!")) for m in example.prompt]
    said = turns[-1][1] if len(turns) == 1 else json.dumps(turns, ensure_ascii=False)
    return TEXT_KEY + hashlib.sha256(said.encode()).hexdigest()[:32]


def _grade_by_name(example: Example, answer: str) -> Grade:
    return grade_declared(_grader_of(example), gold(example), answer, example.metadata.get("pattern"))


def _grader_of(example: Example) -> str:
    name = example.metadata.get("grader")
    return str(name) if name is not None else suggest_grader(gold(example))


def _require_problem(family: TaskFamily, example: Example) -> Problem:
    problem = family.parse(example.question) or _regenerated(family, example)
    if problem is None:
        raise DataError(f"family {family.name} does not know the question {example.question[:80]!r}.")
    return problem


def _regenerated(family: TaskFamily, example: Example) -> Problem | None:
    """The problem generated from the example's level and seed, if it is the one that the example asks."""
    seed = example.metadata.get("seed")
    if not isinstance(seed, int) or example.level not in family.levels:
        return None
    problem = family.generate(example.level, seed)
    return problem if problem.question == example.question else None


def declared_graders() -> list[str]:
    """Names of the declared graders."""
    return sorted([*_READERS, "regex"])


def grade_declared(name: str, gold: str, answer: str, pattern: str | None = None) -> Grade:
    """Grade an answer against the gold answer. Error classes: ``error_text``, ``no_gold``, ``format``, ``wrong``."""
    read = _reader(name, pattern)
    expected, given = read(gold), read(answer)
    extracted = None if _is_void(given) else _text(given).encode(errors="replace").decode()
    if ERROR_TEXT.match(answer):
        return Grade(correct=False, extracted=None, error="error_text")
    if _is_void(expected):
        return Grade(correct=False, extracted=extracted, error="no_gold")
    if extracted is None:
        return Grade(correct=False, extracted=None, error="format")
    is_correct = _is_same(expected, given)
    return Grade(correct=is_correct, extracted=extracted, error=None if is_correct else "wrong")


def suggest_grader(gold: str) -> str:
    """A suitable grader for a gold answer whose source declares none."""
    value = _read_json(gold)
    if isinstance(value, dict | list):
        return "json"
    return "numeric" if is_single_number(gold) else "normalized"


def _reader(name: str, pattern: str | None) -> Callable[[str], Reading]:
    if name == "regex":
        compiled = _compiled(pattern)
        return lambda text: _read_match(compiled, text)
    if name not in _READERS:
        raise UnknownPlugin(f"no declared grader {name!r}. Known: {', '.join(declared_graders())}.")
    return _READERS[name]


def _compiled(pattern: str | None) -> re.Pattern[str]:
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= PATTERN_LIMIT:
        raise DataError(f"grader regex needs metadata.pattern, 1 to {PATTERN_LIMIT} characters.")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataError(f"metadata.pattern {pattern!r} is not a regular expression: {error}.") from error


def _read_exact(text: str) -> Reading:
    return text.strip() or None


def _read_normalized(text: str) -> Reading:
    folded = " ".join(unicodedata.normalize("NFC", text).casefold().split()).rstrip(_EDGES)
    bare = folded.lstrip(_EDGES)
    is_fraction = bare[:1].isdecimal() and folded[: len(folded) - len(bare)].endswith((".", ","))
    return (folded[len(folded) - len(bare) - 1 :] if is_fraction else bare) or None


def _read_json(text: str) -> Reading:
    fenced = _FENCE.search(text)
    candidate = (fenced[1] if fenced else text).strip()
    for start, end in ((0, len(candidate)), _span(candidate, "{", "}"), _span(candidate, "[", "]")):
        try:
            found = json.loads(candidate[start:end], parse_constant=_refuse_constant, parse_float=_read_float)
            return _copied(found)
        except (ValueError, ArithmeticError, RecursionError):  # ArithmeticError: an exponent out of Decimal's range
            continue
    return None


def _read_prefix(text: str) -> Reading:
    try:
        return show(evaluate(parse(text.strip())))
    except (MalformedExpression, UndefinedValue):
        return None


def _read_match(pattern: re.Pattern[str], text: str) -> Reading:
    match = pattern.search(text[:ANSWER_LIMIT])
    if match is None:
        return None
    return (match[1] if match.re.groups else match[0]) or None


_READERS: dict[str, Callable[[str], Reading]] = {
    "exact": _read_exact,
    "normalized": _read_normalized,
    "numeric": read_number,
    "json": _read_json,
    "prefix": _read_prefix,
}


def _span(text: str, opening: str, closing: str) -> tuple[int, int]:
    start, end = text.find(opening), text.rfind(closing) + 1
    return (start, end) if 0 <= start < end else (0, 0)


def _refuse_constant(name: str) -> Reading:
    raise ValueError(f"{name} is not JSON")


def _read_float(text: str) -> int | float | Decimal:
    """The exact value, as a float only if that equals the number as written."""
    exact = Decimal(text)
    if abs(exact.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"{text[:40]} is too large or too small a number")
    if exact == exact.to_integral_value():
        return int(exact)
    return float(text) if Decimal(repr(float(text))) == exact else exact


def _is_void(value: Reading) -> bool:
    return value is None or (isinstance(value, str | dict | list) and not value)


def _is_same(expected: Reading, given: Reading) -> bool:
    if isinstance(expected, Fraction):
        tolerance = 0 if expected.denominator == 1 else _TOLERANCE * abs(expected)
        return bool(abs(expected - given) <= tolerance)
    return _text(expected) == _text(given)


def _text(value: Reading) -> str:
    """The canonical text of a value; 1 and true are different values."""
    if isinstance(value, str):
        return value
    if isinstance(value, Fraction):
        return show_number(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_exact)


def _exact(number: Decimal) -> dict[str, str]:
    return {"\0number": f"{number:f}".rstrip("0")}


def _copied(value: Reading) -> Reading:
    """A deep copy. Raises RecursionError for a value that is nested too deeply to compare."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
