"""Read the number that a text gives as its answer: by its value, or not at all.

Which number that is: the one in the last ``\\boxed{…}``; else the one right after the last ``####``, or the last
``answer is``; else the last one behind such a mark, or of the text. A number that is glued to what is not understood
(an operator, another separator, a letter that may scale it) is no number, and no other is taken instead: so an answer
is never right because a part of it was overlooked.

Understood are signs and digits of any script, ``1,250,000.5``, ``1e3``, ``5 × 10³``, ``5 \\times 10^{3}``, ``1/2`` and
``\\frac{1}{2}``, currency signs, common units, and the marks of Markdown and LaTeX around a number. A comma groups by
thousands and a point is decimal: ``1,5`` and ``1.234,5`` are not read. Of a percentage the number is read as written.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_AROUND = 2_500
"""Characters looked at on either side of a digit: more than the longest number that is read has."""
_BOXED_LIMIT = 2_000
_CONTEXT = 60
_LEAD_LIMIT = 24
"""Characters that may stand between ``answer is`` and its number."""

_MINUS = "\u02d7\u2010\u2011\u2012\u2013\u2212\u2796\ufe63\uff0d"
_PLUS = "\u2795\ufe62\uff0b"
_SPELLINGS = {
    **dict.fromkeys(_MINUS, "-"),
    **dict.fromkeys(_PLUS, "+"),
    **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufeff", ""),  # invisible
    **dict.fromkeys("\u2044\u2215\uff0f", "/"),
    **dict.fromkeys("\u2217\uff0a", "*"),
    "\uff0c": ",",
    "\uff0e": ".",
    "\uff05": "%",
    "\uff1d": "=",
    "\uff04": "$",
}
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

_PLAIN = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,300}|[0-9]{1,1000})(?:\.[0-9]{1,1000})?|\.[0-9]{1,1000})"
_EXPONENT = r"[-+]?[0-9]{1,3}"
_POWER = (
    rf"10[ ]?(?:(?:\^|\*\*)[ ]?(?:\{{[ ]?(?P<braced>{_EXPONENT})[ ]?\}}|\((?P<bracketed>{_EXPONENT})\)"
    rf"|(?P<bare>{_EXPONENT}))|(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}}))"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+])?(?:(?:US|AU?|CA?|HK|NZ|NT|R|S)?\\?\$|Rs\.?|[€£¥₹])?(?P<inner>[-+])?(?:"
    rf"\\[dt]?frac[ ]?\{{[ ]?(?P<above>[-+]?{_PLAIN})[ ]?\}}[ ]?\{{[ ]?(?P<below>{_PLAIN})[ ]?\}}"
    rf"|(?:(?P<factor>{_PLAIN})[ ]?(?:×|\\times|\\cdot|·|⋅|\*|[xX])[ ]?)?{_POWER}"
    rf"|(?P<upper>{_PLAIN})[ ]?/[ ]?(?P<lower>{_PLAIN})"
    rf"|(?P<plain>{_PLAIN})(?:[eE](?P<exponent>{_EXPONENT}))?)"
)
_LONE = re.compile(
    r"[-+]?(?P<money>[$€£][-+]?)?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,300}|0|[1-9][0-9]{0,999})"
    r"(?:\.[0-9]{0,999}[1-9]|\.0{1,999}|(?(money)\.[0-9]{1,999}|(?!)))?%?"
)

_WORD = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3"
"""Scripts that put no spaces between words."""
_SCALING = frozenset("十百千万萬亿億兆零点點分半余餘多几幾折負负第만천백십억조")
"""Their characters that change the number beside them, with those that are numeric."""
_UNIT = (
    r"(?:km/h|kmh|mph|[ckm]?m[²³]|km|cm|mm|kg|mg|g|ml|mL|L|cl|lbs?|oz|ft|hrs?|h|mins?|secs?|s|am|pm|AM|PM"
    r"|USD|EUR|GBP|st|nd|rd|th|°[CF]?|\^\{?\\circ\}?|[€£¥₹])"
)
_CLOSERS = r"[\])}\"'”’»`*_）」』]{0,8}"
_BEFORE = re.compile(
    rf"(?:^|[\s=≈~→⇒{_WORD}]|(?<![0-9])[:：]|</?[A-Za-z]{{1,20}}>|(?<=[0-9])>>"
    r"|\\(?:text|textbf|mathbf|mathrm|boxed|mbox)[ ]?\{)"
    r"(?:\\[(\[]|[(\[{\"'“‘«`*_$（「『]){0,8}\Z"
)
_AFTER = re.compile(
    rf"(?:\\?%|{_UNIT}(?![^\W_]))?{_CLOSERS}(?:\\[)\]]|\${{1,2}})?(?![.,:]{{2}}|[.,:][0-9])[.,;:!?]{{0,2}}{_CLOSERS}"
    rf"(?:\Z|[\s=|&。；：！？、{_WORD}]|</?[A-Za-z]|<\||/[A-Za-z]|-[A-Za-z]{{2}}|\\\\|\\[,;: ]"
    r"|\\(?:text|mathrm|mbox|quad)\b)"
)
_OPERATOR_BEFORE = re.compile(
    r"(?:[-+±][ ]+|[±√∛][ ]*|(?<![A-Za-z])(?:minus|negative|plus)[ ]+"
    r"|[\w)\]}](?:[ ]+\*{1,2}[ ]+|\*{1,2}[ ]*)|[\w)\]}][ ]*(?:[/×÷·⋅^]|\\times|\\cdot|\\div)[ ]*|[0-9)][ ]*[xX][ ]*)\Z",
    re.IGNORECASE,
)
_OPERATOR_AFTER = re.compile(
    r"(?:[ ]+\*{1,2}[ ]*|\*{1,2}|[ ]*(?:[-+/×÷·⋅^]|\\times|\\cdot|\\div|[xX](?=[ ]*[0-9]))[ ]*)"
    r"[-+$]*(?:[0-9√]|\.[0-9]|\([-+ ]*[0-9]|\\[a-z])"
)
"""Asterisks right behind a number and before a space are Markdown's."""
_SQUARE_UNIT = re.compile(r"\b(mm|cm|dm|m|km|ft|in|s|units?)\^\{?[23]\}?(?![0-9])")
_ANSWER = re.compile(r"\banswer\b(?:[ ]{0,3}(?:is\b|=)|\*{0,2}:)", re.IGNORECASE)
_LEAD_IN = re.compile(r"[ :*_=$€£({\[\"'`\\+\-.]*")
_DIGIT = re.compile(r"[0-9]")


def read_number(text: str) -> Fraction | None:
    """The value of the number that the text gives as its answer; None where that cannot be told."""
    text = _spelt(text)
    boxed = _boxed(text)
    if boxed is not None:
        return _only(boxed)
    rest = _behind_mark(text)
    first = _DIGIT.search(rest)
    if first is None:
        return _last(text)
    is_led_in = rest is not text and first.start() <= _LEAD_LIMIT and _LEAD_IN.fullmatch(rest[: first.start()])
    return _at(rest, first.start()) if is_led_in else _last(rest)


def is_lone_number(text: str) -> bool:
    """Whether a gold is one well-formed number and nothing else.

    ``007`` and ``3.10`` count as names, as of a part or a version: another spelling of their value is another name.
    """
    return _LONE.fullmatch(_spelt(text).strip()) is not None


def show(value: Fraction) -> str:
    """One spelling for each value: decimal where that ends, else as a fraction."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return str(value)
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def _spelt(text: str) -> str:
    """The text with ASCII digits, signs and spaces, and LaTeX's ``{,}`` as a comma."""
    if not text.isascii():
        text = text.translate({ord(character): _spelling(character) for character in set(text)})
    return _SQUARE_UNIT.sub(r"\1", text.replace("{,}", ",").replace("\t", " "))


def _spelling(character: str) -> str:
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return " " if unicodedata.category(character) == "Zs" else character


def _boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{…}``; None where there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    inside = text[start + len("\\boxed{") :][:_BOXED_LIMIT]
    depth = 1
    for place, character in enumerate(inside):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return inside[:place]
    return inside


def _behind_mark(text: str) -> str:
    """What follows the last ``####``, else the last ``answer is``; the text itself where there is neither."""
    _, mark, rest = text.rpartition("####")
    if mark:
        return rest
    end = max((match.end() for match in _ANSWER.finditer(text)), default=0)
    return text[end:] if end else text


def _only(text: str) -> Fraction | None:
    """The one number of a text; None where there are several."""
    first = _DIGIT.search(text)
    if first is None or _has_other_numeral(text, 0):
        return None
    found = _match(text, _last_digit(text))
    return _value(found) if found is not None and found.start() <= first.start() and _stands_free(text, found) else None


def _last(text: str) -> Fraction | None:
    place = _last_digit(text)
    return None if place < 0 or _has_other_numeral(text, place) else _at(text, place)


def _last_digit(text: str) -> int:
    return max(text.rfind(digit) for digit in "0123456789")


def _at(text: str, place: int) -> Fraction | None:
    """The value of the number to which the digit at that place belongs."""
    found = _match(text, place)
    return _value(found) if found is not None and _stands_free(text, found) else None


def _match(text: str, place: int) -> re.Match[str] | None:
    """The match that covers the place; None where it may go on beyond what was looked at."""
    start, end = max(0, place - _AROUND), min(len(text), place + _AROUND)
    for found in _NUMBER.finditer(text, start, end):
        if found.end() > place:
            is_cut = (start > 0 and found.start() == start) or (end < len(text) and found.end() == end)
            return None if is_cut or found.start() > place else found
    return None


def _stands_free(text: str, found: re.Match[str]) -> bool:
    """Whether nothing around the number belongs to it, and it is no part of a larger expression."""
    before = text[max(0, found.start() - _CONTEXT) : found.start()]
    after = text[found.end() : found.end() + _CONTEXT]
    neighbours = (before.rstrip(" ([{\"'“‘«`*_$（「『")[-1:], after.lstrip(" ")[:1])
    return (
        _BEFORE.search(before) is not None
        and _AFTER.match(after) is not None
        and _OPERATOR_BEFORE.search(before) is None
        and _OPERATOR_AFTER.match(after) is None
        and not any(character.isnumeric() or character in _SCALING for character in neighbours)
    )


def _has_other_numeral(text: str, after: int) -> bool:
    """Whether a numeral such as ``½`` stands behind that place; the ``²`` of ``cm²`` is none."""
    if text.isascii():
        return False
    others = "".join(c for c in set(text) if unicodedata.category(c) in ("No", "Nl"))
    if not others:
        return False
    found = (match.start() for match in re.compile(f"[{re.escape(others)}]").finditer(text, after))
    return any(place == 0 or not (text[place - 1].isalpha() or _is_raised(text, place)) for place in found)


def _is_raised(text: str, place: int) -> bool:
    """Whether it is of an exponent, as in ``10³``, which the number's own reading looks at."""
    return text[place] in "⁰¹²³⁴⁵⁶⁷⁸⁹" and text[place - 1] in "0123456789⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹"


def _value(found: re.Match[str]) -> Fraction | None:
    if found["sign"] and found["inner"]:
        return None
    sign = -1 if "-" in (found["sign"], found["inner"]) else 1
    above, below = found["above"] or found["upper"], found["below"] or found["lower"]
    if above is not None:
        divisor = _plain(below)
        return sign * _plain(above) / divisor if divisor else None
    if found["plain"] is not None:
        return sign * _plain(found["plain"]) * Fraction(10) ** int(found["exponent"] or 0)
    raised = found["braced"] or found["bracketed"] or found["bare"] or found["raised"].translate(_LOWERED)
    return sign * _plain(found["factor"] or "1") * Fraction(10) ** int(raised)


def _plain(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))
