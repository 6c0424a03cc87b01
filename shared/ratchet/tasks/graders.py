"""Grades an example's answer, by its family, else by its declared grader, and computes the key of its question.

Declared graders are for data with a gold answer but without a family:

================  =======================================================================================
``exact``         the same text, except for white space at the ends
``normalized``    the same text after NFC, case folding, single spaces, and without punctuation at the ends;
                  a text that ends in ``The answer is …`` or ``Answer: …`` is graded by what follows
``numeric``       the same number (see ``numerals``): integers exactly, others to 1 part in 10⁶ of the gold, or
                  both to ``metadata.tolerance``, which is relative
``math``          the same mathematical value, set, equation or expression (see ``mathematics``), numbers as above
``choice``        the same letter, A to J, of a multiple-choice question: ``B``, ``(B)``, ``B) Paris``
``json``          the same JSON value, object keys in any order; a code fence or text around it is removed
``prefix``        the same value of two expressions in prefix form, such as ``(add 2 3)`` and ``5``
``regex``         the same text in the first match of ``metadata.pattern`` (its group 1, else the whole match)
================  =======================================================================================

``numeric``, ``math`` and ``choice`` look for the answer in the places that ``answers`` lists, at the end of the text.
An empty gold accepts no answer, and an empty answer is never right.

A wrong answer has an error: ``error_text`` (a program's error message), ``no_gold``, ``format`` (no answer could be
read), ``ambiguous`` (several different answers could be meant), ``wordy`` (the gold is in a text that is not it),
``wrong``.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from ratchet.data.example import Example
from ratchet.errors import DataError, MalformedExpression, UndefinedValue, UnknownPlugin
from ratchet.profiles.regime3.grammar import evaluate, parse, show
from ratchet.tasks import answers, mathematics, numerals, registry
from ratchet.tasks.answers import AmbiguousAnswer
from ratchet.tasks.family import Grade, Problem, TaskFamily
from ratchet.tasks.numerals import Number

VERSION = "declared@3"
"""Must be increased with every change that may alter a grade: records of different versions are not compared."""
TEXT_KEY = "text:"
"""Prefix of the keys of items without a family."""

Reading = Any
"""The value that a grader reads from a text; None if there is none."""

PATTERN_LIMIT = 200

ERROR_TEXT: Final = re.compile(r"\s*(?:error|exception|traceback)\b\s*(?::|\()", re.IGNORECASE)
"""The beginning of a program's error message, which is never an answer."""

_FENCE = re.compile(r"```(?:json)?[ \t\r]{0,9}\n(.*?)```", re.DOTALL)
_EDGES = " .,;:!?\"'`*()[]{}"
_LARGEST_EXPONENT = 1_000
_SHORT = 200
"""Characters after ``answer is`` that are taken for the whole answer; more are the text of a longer one."""
_WORD = re.compile(r"\w+")

_LETTER = r"[A-J]"
_ALONE = re.compile(rf"\W*({_LETTER})\W*", re.ASCII)
_LISTED = re.compile(rf"[\s(\[*_]*({_LETTER})[*_]*[)\].:][\s*_]", re.ASCII)
_SAID_CHOICE = re.compile(r"\W*((?!I\b)[B-J]|A(?!\s+\w)|[AI](?=\s+(?:because|since|as|for)\b))\b", re.ASCII)
"""The letter after ``answer is``; the words A and I need more to be one."""
_SEVERAL_CHOICES = re.compile(rf"\W*{_LETTER}\W*(?:or|and|/|,)\W*{_LETTER}\b", re.ASCII)
_NAMED_CHOICE = re.compile(rf"\(({_LETTER})\)|\b(?:option|choice)(?: is)?:? \(?({_LETTER})\b", re.ASCII)
_MATH_SPAN = re.compile(
    r"(?<!\\)\$\$?(?=[^\s$])([^$]{1,300}?)(?<=\S)\$\$?(?![0-9])|(?<!\\)\$\$?\s([^$]{0,150}\\[^$]{0,150})\s\$\$?"
    r"|\\\((.{1,300}?)\\\)|\\\[(.{1,300}?)\\\]",
    re.DOTALL,
)
"""LaTeX between dollar signs or brackets; ``$5 and $6`` are amounts of money."""
_MATH_LIKE = re.compile(
    r"-?[0-9]+/[0-9]+"
    r"|(?=.*[\^=+*]|.*\\[a-z]|[(\[].*,)(?=.*[0-9\\^])(?:\\[A-Za-z]+|\\.|(?<![A-Za-z])[A-Za-z](?![A-Za-z])|[-+*/^(){}\[\]|.,=<>\s0-9$])+"
)
"""A gold answer that is a fraction, or is written in LaTeX or as a formula, with variables of one letter."""


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


class Formula(NamedTuple):
    """A formula that is no number. It is parsed only if it must be compared with another one."""

    text: str


def _grade_by_name(example: Example, answer: str) -> Grade:
    metadata = example.metadata
    name = metadata.get("grader")
    expected = gold(example)
    return grade_declared(
        suggest_grader(expected) if name is None else str(name),
        expected,
        answer,
        metadata.get("pattern"),
        metadata.get("tolerance"),
    )


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


def grade_declared(
    name: str, gold: str, answer: str, pattern: str | None = None, tolerance: float | None = None
) -> Grade:
    """Grade an answer against the gold answer; the module's description lists graders and errors.

    Raises UnknownPlugin for an unknown grader, DataError for a bad ``pattern`` or ``tolerance``.
    """
    read = _reader(name, pattern)
    allowed = _tolerance(tolerance)
    if ERROR_TEXT.match(answer):
        return Grade(correct=False, extracted=None, error="error_text")
    expected, given = _read_gold(read, gold), None
    try:
        given = read(answer)
        error = "format"
    except AmbiguousAnswer:
        error = "ambiguous"
    extracted = None if _is_void(given) else _text(given).encode(errors="replace").decode()
    if _is_void(expected):
        return Grade(correct=False, extracted=extracted, error="no_gold")
    if extracted is None:
        return Grade(correct=False, extracted=None, error=error)
    if _is_same(expected, given, allowed):
        return Grade(correct=True, extracted=extracted)
    if isinstance(given, Formula) and mathematics.parse(given.text) is None:
        return Grade(correct=False, extracted=None, error="format")
    is_wordy = name in ("exact", "normalized") and _holds(answer, expected, exactly=name == "exact")
    return Grade(correct=False, extracted=extracted, error="wordy" if is_wordy else "wrong")


def suggest_grader(gold: str) -> str:
    """A suitable grader for a gold answer whose source declares none.

    ``choice`` is never suggested: a single letter alone does not show that the question had choices.
    """
    if isinstance(_read_json(gold), dict | list):
        return "json"
    mark = next(answers.hash_marks(answers.last_line(gold)), None)
    formula = (gold if mark is None else mark).strip()
    if numerals.is_single_number(formula) or numerals.is_single_number(_bare(formula)):
        return "numeric"
    is_math = answers.last_box(gold) is not None or _MATH_LIKE.fullmatch(_bare(formula)) is not None
    return "math" if is_math and grade_declared("math", gold, gold).correct else "normalized"


def _bare(formula: str) -> str:
    """A formula without dollar signs around it."""
    return formula[1:-1] if len(formula) > 2 and formula[0] == formula[-1] == "$" else formula


def _read_gold(read: Callable[[str], Reading], gold: str) -> Reading:
    try:
        return read(gold)
    except AmbiguousAnswer:
        return None


def _tolerance(stated: Any) -> Fraction | None:
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated < 1:
        raise DataError(f"metadata.tolerance {stated!r} is not a number from 0 to 1, such as 0.01 for 1 %.")
    return Fraction(str(stated))


def _holds(answer: str, expected: str, *, exactly: bool) -> bool:
    """Whether the expected words are in the answer, one after another."""
    if exactly and expected not in answer:
        return False
    words = " ".join(_WORD.findall(expected.casefold()))
    return bool(words) and f" {words} " in f" {' '.join(_WORD.findall(answers.tail(answer).casefold()))} "


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
    mark = next(answers.hash_marks(answers.last_line(text)), None)
    said = answers.after_phrase(answers.tail(text)) if mark is None else mark
    is_short = said is not None and len(said) <= _SHORT and "\n" not in said.strip()
    return (_normalized(said) if said and is_short else None) or _normalized(text)


def _normalized(text: str) -> str | None:
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


def _read_math(text: str) -> Number | Formula | None:
    """The expression where the text gives its answer; a number that stands there is read as one."""
    text = answers.tail(text)
    found = _read_formula(_formula_place(text))
    return numerals.read_number(text) if found is None else found


def _formula_place(text: str) -> str:
    for rest in answers.hash_marks(text):
        if _read_formula(rest) is not None:
            return rest
    box = answers.last_box(text)
    if box is not None:
        return box.inside
    said = answers.after_phrase(text)
    return answers.first_line(said) if said else answers.last_line(text)


def _read_formula(text: str) -> Number | Formula | None:
    spans = {"".join(groups).strip() for groups in _MATH_SPAN.findall(text)}
    if len(spans) > 1:
        raise AmbiguousAnswer
    text = spans.pop() if spans else text.strip(" *\t").removesuffix(".")
    number = numerals.read_literal(text)
    if number is not None:
        return number
    return Formula(text) if mathematics.as_latex(text) else None


def _read_choice(text: str) -> Reading:
    """The letter where the text gives its answer, else the only one that it names."""
    text = answers.tail(text)
    box, said = answers.last_box(text), answers.after_phrase(text)
    for place in (*answers.hash_marks(text), box and box.inside):
        letter = _letter(place) if place else None
        if letter:
            return letter
    if said:
        if _SEVERAL_CHOICES.match(said):
            raise AmbiguousAnswer
        found = _SAID_CHOICE.match(said)
        letter = found[1] if found else _letter(said)
        if letter:
            return letter
    named = {first or second for first, second in _NAMED_CHOICE.findall(text)}
    named |= {letter for place in (text, answers.last_line(text)) if (letter := _letter(place))}
    if len(named) > 1:
        raise AmbiguousAnswer
    return named.pop() if named else None


def _letter(text: str) -> str | None:
    """The letter that a text is, or begins with as a list does."""
    bare = text.strip(_EDGES)
    if len(bare) == 1:
        text = bare.upper()
    found = _ALONE.fullmatch(text) or _LISTED.match(text)
    return found[1] if found else None


def _read_match(pattern: re.Pattern[str], text: str) -> Reading:
    match = pattern.search(answers.tail(text))
    if match is None:
        return None
    return (match[1] if match.re.groups else match[0]) or None


_READERS: dict[str, Callable[[str], Reading]] = {
    "exact": _read_exact,
    "normalized": _read_normalized,
    "numeric": numerals.read_number,
    "math": _read_math,
    "choice": _read_choice,
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


def _is_same(expected: Reading, given: Reading, tolerance: Fraction | None) -> bool:
    if isinstance(expected, Number) and isinstance(given, Number):
        return numerals.is_same(expected, given, tolerance)
    if isinstance(expected, Formula | Number):
        return _is_same_formula(expected, given)
    return _text(expected) == _text(given)


def _is_same_formula(expected: Number | Formula, given: Number | Formula) -> bool:
    if expected == given:
        return True
    trees = _tree(expected), _tree(given)
    return None not in trees and mathematics.is_same(*trees)


def _tree(value: Number | Formula) -> mathematics.Expression | None:
    if isinstance(value, Formula):
        return mathematics.parse(value.text)
    return mathematics.from_decimal(numerals.show(value.value / 100 if value.is_percentage else value.value))


def _text(value: Reading) -> str:
    """The canonical text of a value; 1 and true are different values."""
    if isinstance(value, str):
        return value
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Formula):
        return value.text
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=_exact)


def _exact(number: Decimal) -> dict[str, str]:
    return {"\0number": f"{number:f}".rstrip("0")}


def _copied(value: Reading) -> Reading:
    """A deep copy. Raises RecursionError for a value that is nested too deeply to compare."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value
