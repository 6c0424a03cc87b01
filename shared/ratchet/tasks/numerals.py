"""Reads the number that a text gives as its answer, exactly. A number whose value is unclear is not read at all.

It is looked for where ``answers`` says; of an equation, the right-hand side counts. Where different numbers are left,
the answer is ambiguous.

A literal number is read here: signs and digits of any script, ``1,250,000.5``, ``1e3``, ``5 × 10³``, ``1/2``, ``½``,
``1 1/2``, ``\\frac{1}{2}``, ``50%``, with currencies, units, and Markdown, HTML and LaTeX markup around it. A comma
separates thousands and a point is decimal: ``1,5`` and ``1.234,5`` are two numbers each. An expression in LaTeX, such
as ``2^{10}``, is left to ``mathematics``.

A number is not read if it is attached to unknown characters, or if an operator, a function, a comparison or a word such
as ``million`` next to it changes its value. These are matched by lists, so other wordings can still be misread. In
prose, math-verify (0.9) is no substitute: it takes ``5 million`` for 5 and ``1 1/2`` for 1.
"""

from __future__ import annotations

import re
from collections import deque
from fractions import Fraction
from typing import NamedTuple

from ratchet.tasks import answers, mathematics
from ratchet.tasks.answers import AmbiguousAnswer
from ratchet.tasks.markup import plain_characters, strip_markup

_CONTEXT = 80
"""Number of characters that are examined on either side of a number."""
_MOST_PLACES = 1_000
_TOLERANCE = Fraction(1, 1_000_000)

_PLAIN = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,300}|[0-9]{1,1000})(?:\.[0-9]{1,1000})?|\.[0-9]{1,1000})"
_EXPONENT = r"[-+]?[0-9]{1,3}"
_FRACTION = (
    r"(?:(?P<whole>[0-9]{1,15})[ ])?(?P<upper>[0-9]{1,15})/(?P<lower>[0-9]{1,15})"
    r"|(?:(?P<units>[0-9]{1,15})[ ]?)?\\frac[ ]?\{[ ]?(?P<above>[-+]?PLAIN)[ ]?\}[ ]?\{[ ]?(?P<below>PLAIN)[ ]?\}"
    r"|(?P<dividend>PLAIN)[ ]?/[ ]?(?P<divisor>PLAIN)"
).replace("PLAIN", _PLAIN)
_POWER = (
    rf"10[ ]?(?:\^|\*\*)[ ]?(?:\{{[ ]?(?P<braced>{_EXPONENT})[ ]?\}}|\((?P<bracketed>{_EXPONENT})\)"
    rf"|(?P<bare>{_EXPONENT}))"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+])?(?:{_FRACTION}|(?:(?P<factor>{_PLAIN})[ ]?[×·⋅*xX][ ]?)?{_POWER}"
    rf"|(?P<plain>{_PLAIN})(?:[eE](?P<exponent>{_EXPONENT}))?)"
)
_BARE = re.compile(r"\s*(-?[0-9]{1,18})(?:\.([0-9]{1,18}))?\.?\s*")
"""A text that is a number and nothing else, as most are: read at once."""
_SINGLE_NUMBER = re.compile(
    r"[-+]?(?:\$[-+]?)?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,300}|0|[1-9][0-9]{0,999})(?:\.[0-9]{1,999})?%?"
)

_UNSPACED = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3"
"""Scripts without spaces between words."""
_UNSPACED_SCALES = frozenset("十百千万萬亿億兆零点點分半余餘多几幾折負负第만천백십억조")
"""Characters of these scripts that change the value of a number next to them, as numeric characters do too."""
_PERCENT = re.compile(r"[ ]?%|[ ]percent(?![^\W_])")
_UNIT = (
    r"(?:km/h|kmh|mph|km|cm|mm|kg|mg|g|ml|mL|L|cl|lbs?|oz|ft|hrs?|h|mins?|secs?|s|am|pm|AM|PM"
    r"|[ ]?USD|[ ]?EUR|[ ]?GBP|st|nd|rd|th|°[CF]?|[ ]?%)"
)
_OPENERS = re.compile(r"(?:[(\[{\"'“‘«（「『][ ]{0,2}|[*_`]){0,8}\Z")
_CLOSERS = r"[\])}\"'”’»`*_）」』]{0,8}"
_FREE_BEFORE = re.compile(rf"(?:\A|[\s=≈→{_UNSPACED}]|(?<![0-9])[:：])\Z")
_CLOSING = re.compile(rf"(?:{_UNIT}(?![^\W_]))?{_CLOSERS}")
_FREE_AFTER = re.compile(
    rf"(?:[ ]?(?:\.{{2,}}|[.,;:!?]{{1,2}}))?{_CLOSERS}"
    rf"(?:\Z|[\s=≈→|&。；：！？、{_UNSPACED}]|/[A-Za-z]|-[A-Za-z]{{2}}|—(?![0-9])|\{{[ A-Za-z])"
)
_OPERATORS = r"+±<>^×÷·√∛‰π\\\u2200-\u2247\u2249-\u22ff"
"""All mathematical operators but ``=`` and ``≈``; a backslash begins an unknown command."""
_CHANGED_BEFORE = re.compile(
    rf"(?:[-/{_OPERATORS}]|\\[A-Za-z]{{1,30}}|[^\s*][ ]{{0,9}}\*{{1,2}}|[0-9)][ ]{{0,9}}x"
    r"|(?<![^\W_])(?:minus|negative|plus|times|not|than|over|half|twice|double|at (?:least|most)|up to"
    r"|sqrt|log|ln|exp|sin|cos|tan|(?:root|power|half) of|(?:divided|multiplied) by))[ ]{0,9}\Z",
    re.IGNORECASE,
)
_CHANGED_AFTER = re.compile(
    rf"[ ]{{0,9}}(?:[{_OPERATORS}]|\*|-[ ]{{0,9}}[0-9.$(√π\\]|/[ ]{{0,9}}[0-9.$(√π\\]|[xX][ ]{{0,9}}[0-9]"
    r"|(?:[-/][ ]{0,9})?\{?[inxyz](?![^\W_])|\{?[ ]?[kKMBT](?![^\W_])"
    r"|[-{]?[ ]?(?i:(?:hundred|thousand|million|billion|trillion|dozen|lakh|crore)s?"
    r"|mn|bn|halves|(?:third|fourth|fifth|sixth|eighth|tenth|hundredth|thousandth|millionth)s"
    r"|plus|minus|squared|cubed|factorial|(?:divided|multiplied) by|and (?:a|one) (?:half|third|quarter))(?![^\W_]))"
)
_CLAUSE_END = re.compile(r"[,;:.!?]\s+|\n")
_NEXT_EQUATION = re.compile(r"(?<=[0-9]) and (?=[A-Za-z0-9]{1,10} ?=)")
_EQUALS = re.compile(r"[=≈→]")
_SHORT_UNIT = re.compile(rf"(?:{_UNIT}|[ /{{-]{{0,3}}[a-z][A-Za-z]{{0,30}}(?:[ /][a-z]{{1,30}}){{0,3}})?\W*\Z")
_LITERAL_UNIT = re.compile(rf"(?:\{{?[ ]?{_UNIT}|[ ]?\{{?[ ][a-z]{{3,30}}(?:[ ][a-z]{{1,30}})?)?\}}?")
_DIGIT = re.compile(r"[0-9]")
_EXPRESSION = re.compile(r"(?=.*[\\^])(?:\\[A-Za-z]+|[-+*/^(){}\[\].,\s0-9×·÷√])+")
"""LaTeX without words or variables."""


class Number(NamedTuple):
    """The value as written: 50 for ``50%``."""

    value: Fraction
    is_percentage: bool = False

    def __str__(self) -> str:
        return show(self.value) + ("%" if self.is_percentage else "")


def read_number(text: str) -> Number | None:
    """The number that the text gives as its answer; None if it gives none, or one whose value is unclear.

    Raises AmbiguousAnswer if different numbers could be meant.
    """
    bare = _BARE.fullmatch(text)
    if bare:
        return Number(Fraction(int(bare[1])) if bare[2] is None else Fraction(f"{bare[1]}.{bare[2]}"))
    text = strip_markup(plain_characters(answers.tail(text)))
    for rest in answers.hash_marks(text):
        if _is_short(rest):
            return read_fragment(rest)
    box = answers.last_box(text)
    if box is not None:
        return _read_box(box)
    said = answers.first_line(answers.after_phrase(text) or "")
    if _DIGIT.search(said):
        return read_fragment(said)
    last = answers.last_line(text)
    return read_fragment(last if _DIGIT.search(last) else text)


def read_literal(text: str) -> Number | None:
    """The number that a text is, with no more than a unit after it; None if it is anything else, such as a formula."""
    text = strip_markup(plain_characters(text)).strip(" .")
    found = _NUMBER.match(text)
    if found is None or not _LITERAL_UNIT.fullmatch(text, found.end()):
        return None
    return _value(found)


def is_single_number(text: str) -> bool:
    """Whether a gold answer is one well-formed number and nothing else.

    ``007`` counts as a name, since ``7`` would be another.
    """
    return _SINGLE_NUMBER.fullmatch(plain_characters(text).strip()) is not None


def is_same(expected: Number, given: Number, tolerance: Fraction | None) -> bool:
    """Whether a number is right: an integer must be met exactly, and another number to 1 part in 10⁶.

    A tolerance replaces both and is relative: 0.01 accepts what differs by up to 1 % of the expected value. ``50%``
    equals both ``0.5`` and ``50``; two percentages are compared as written.
    """
    if expected == given:
        return True
    wanted, said = {expected.value}, {given.value}
    if expected.is_percentage != given.is_percentage:
        wanted |= {expected.value / 100} if expected.is_percentage else set()
        said |= {given.value / 100} if given.is_percentage else set()
    return any(_is_near(one, other, tolerance) for one in wanted for other in said)


def _is_near(expected: Fraction, given: Fraction, tolerance: Fraction | None) -> bool:
    if tolerance is None:
        tolerance = Fraction(0) if expected.denominator == 1 else _TOLERANCE
    return abs(expected - given) <= tolerance * abs(expected)


def show(value: Fraction) -> str:
    """The canonical text of a value: decimal if that ends after at most 1,000 places, else a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > _MOST_PLACES:
        return str(value)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def _read_box(box: answers.Box) -> Number | None:
    is_changed = _CHANGED_BEFORE.search(box.before[-_CONTEXT:]) or _CHANGED_AFTER.match(box.after[:_CONTEXT])
    return None if is_changed or "!" in box.inside else read_fragment(box.inside)


def _is_short(rest: str) -> bool:
    """Whether what follows ``####`` is a number with its unit, or an equation that ends in one, and no heading."""
    side = _EQUALS.split(answers.without_asides(rest))[-1]
    found = next(iter(deque(_NUMBER.finditer(side), maxlen=1)), None)
    if found is None:
        return _is_expression(rest)
    return not any(c.isalpha() for c in side[: found.start()]) and bool(_SHORT_UNIT.match(side, found.end()))


def read_fragment(text: str) -> Number | None:
    """The number of a line, a box or the like: each clause with a number must give the same one.

    Raises AmbiguousAnswer where they give different numbers.
    """
    try:
        value = _read_clauses(text)
    except AmbiguousAnswer:
        if not _is_expression(text):
            raise
        value = None
    if value is None and _is_expression(text):
        exact = mathematics.rational(text.strip(" .$"))
        return None if exact is None else Number(exact)
    return value


def _is_expression(text: str) -> bool:
    return len(text) <= mathematics.TEXT_LIMIT and _EXPRESSION.fullmatch(text.strip(" .$")) is not None


def _read_clauses(text: str) -> Number | None:
    text = _NEXT_EQUATION.sub("\n", answers.without_asides(text))
    clauses = (clause for clause in _CLAUSE_END.split(text) if _DIGIT.search(clause))
    values = {_read_clause(_EQUALS.split(clause)[-1]) for clause in clauses}
    if len(values) > 1:
        raise AmbiguousAnswer
    return values.pop() if values else None


def _read_clause(text: str) -> Number | None:
    found = list(_NUMBER.finditer(text))
    if len({match[0] for match in found}) > 1 and len({_value(match) for match in found}) > 1:
        raise AmbiguousAnswer
    return _value(found[0]) if found and all(map(_is_free, found)) else None


def _is_free(found: re.Match[str]) -> bool:
    """Whether nothing around the number belongs to it and it is not part of a larger expression."""
    text = found.string
    before = text[max(0, found.start() - _CONTEXT) : found.start()]
    before = _OPENERS.sub("", before, count=1)
    after = text[found.end() : found.end() + _CONTEXT]
    closing = _CLOSING.match(after)
    after = after[closing.end() :] if closing else after
    neighbours = before.rstrip(" ")[-1:], after.lstrip(" ")[:1]
    is_cut_short = "." in found[0] and after.startswith("..")
    return (
        not is_cut_short
        and _FREE_BEFORE.search(before) is not None
        and _FREE_AFTER.match(after) is not None
        and _CHANGED_BEFORE.search(before) is None
        and _CHANGED_AFTER.match(after) is None
        and not any(character.isnumeric() or character in _UNSPACED_SCALES for character in neighbours)
    )


def _value(found: re.Match[str]) -> Number | None:
    exact = _magnitude(found)
    if exact is None:
        return None
    is_percentage = _PERCENT.match(found.string, found.end()) is not None
    return Number(-exact if found["sign"] == "-" else exact, is_percentage)


def _magnitude(found: re.Match[str]) -> Fraction | None:
    above = found["upper"] or found["above"] or found["dividend"]
    if above is not None:
        divisor = _plain(found["lower"] or found["below"] or found["divisor"])
        return int(found["whole"] or found["units"] or 0) + _plain(above) / divisor if divisor else None
    if found["plain"] is not None:
        return _plain(found["plain"]) * Fraction(10) ** int(found["exponent"] or 0)
    return _plain(found["factor"] or "1") * Fraction(10) ** int(found["braced"] or found["bracketed"] or found["bare"])


def _plain(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))
