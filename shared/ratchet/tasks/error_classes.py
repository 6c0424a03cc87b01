"""Classes of errors in answers, determined by programs: from the text alone first, then by the item's grader.

====================  ===========================================================================================
``error_text``        the text is a program's error message
``empty``             there is no text
``repetition``        the text ends in one piece of at most 20 characters, at least six times over
``truncated``         it ran into the token limit, and no family could read an answer
``extraction``        the gold is in the text, but not where the answer is read
====================  ===========================================================================================

Then the class of the family's grader (its ``errors``). Of declared graders, ``numeric`` and ``math`` have ``sign`` (the
right number with the other sign), ``off_by_one`` and ``magnitude`` (off by a power of ten), ``json`` has ``structure``
(another kind of value), ``keys`` (other keys) and ``length`` (another number of entries), ``normalized`` and ``exact``
have ``wordy`` (the gold is in a text that is not it). All have ``format``, ``ambiguous`` (several different answers
could be meant) and ``wrong``. So ``wordy``, ``format``, ``ambiguous``, ``extraction`` and ``truncated`` are faults of
form, which a right answer can have too.
"""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import Any, Final

from ratchet.data.example import Example
from ratchet.tasks import registry
from ratchet.tasks.answers import AmbiguousAnswer
from ratchet.tasks.family import Grade
from ratchet.tasks.graders import ERROR_TEXT, gold, grade_example
from ratchet.tasks.numerals import read_number

GENERIC: Final = {
    "error_text": "the text is a program's error message",
    "empty": "there is no text",
    "repetition": "the text ends in one piece over and over",
    "truncated": "it ran into the token limit before an answer could be read",
    "extraction": "the gold is in the text, but not where the answer is read",
}
_LOOP = re.compile(r"(.{1,20}?)\1{5,}.{0,19}\Z", re.DOTALL)
_TAIL = 400


def classify(example: Example, answer: str, text: str | None = None, *, finished: bool = True) -> str | None:
    """The error class of an answer; None where it is right.

    ``answer`` is the bare answer, ``text`` the model's whole output with its reasoning, ``finished`` whether it ended
    before the token limit. Raises DataError as grade_example does.
    """
    grade = grade_example(example, answer)
    if grade.correct:
        return None
    said = answer if text is None else text
    if ERROR_TEXT.match(said):
        return "error_text"
    if not said.strip():
        return "empty"
    if _LOOP.search(said[-_TAIL:]):
        return "repetition"
    if not finished and (grade.extracted is None or registry.find(example.family) is None):
        return "truncated"
    if grade.extracted is None and grade.error != "ambiguous" and _holds_gold(example, said):
        return "extraction"
    return _by_grader(example, grade)


def _holds_gold(example: Example, said: str) -> bool:
    expected = gold(example).strip()
    return bool(expected) and re.search(rf"(?<!\w){re.escape(expected)}(?!\w)", said) is not None


def _by_grader(example: Example, grade: Grade) -> str:
    name = example.metadata.get("grader")
    if grade.error != "wrong" or grade.extracted is None or registry.find(example.family) is not None:
        return grade.error or "wrong"
    if name in ("numeric", "math"):
        return _numeric(gold(example), grade.extracted)
    return _structural(gold(example), grade.extracted) if name == "json" else "wrong"


def _numeric(expected: str, given: str) -> str:
    try:
        numbers = read_number(expected), read_number(given)
    except AmbiguousAnswer:
        return "wrong"
    if numbers[0] is None or numbers[1] is None:
        return "wrong"
    wanted, said = numbers[0].value, numbers[1].value
    if said == -wanted:
        return "sign"
    if abs(said - wanted) == 1:
        return "off_by_one"
    return "magnitude" if wanted and said and _is_power_of_ten(said / wanted) else "wrong"


def _is_power_of_ten(ratio: Fraction) -> bool:
    larger, smaller = max(ratio.numerator, ratio.denominator), min(ratio.numerator, ratio.denominator)
    return smaller == 1 and re.fullmatch("10+", str(larger)) is not None


def _structural(expected: str, given: str) -> str:
    wanted, said = _json(expected), _json(given)
    if type(wanted) is not type(said):
        return "structure"
    if isinstance(wanted, dict) and wanted.keys() != said.keys():
        return "keys"
    if isinstance(wanted, list) and len(wanted) != len(said):
        return "length"
    return "wrong"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
