"""Reads the number that a text gives as its answer. A number whose value is unclear is not read at all.

It is looked for in the last ``\\boxed{…}``; else after the last ``####`` whose line is a number or an equation; else on
the line of the last ``answer is``; else it is the last number of the text. In a box or on a marked line, the value of
an equation is what follows its last ``=``, and if clauses give different numbers, there is no answer.

Supported are signs and digits of any script, ``1,250,000.5``, ``1e3``, ``5 × 10³``, ``5 \\times 10^{3}``, ``1/2`` and
``\\frac{1}{2}``, currencies, common units, and Markdown, HTML and LaTeX markup around a number. A comma separates
thousands and a point is decimal: ``1,5`` and ``1.234,5`` are not read. A percentage is read as the number written.

A number is not read if it is attached to unknown characters, or if an operator, a function, a comparison or a word such
as ``million`` next to it changes its value. These are matched by lists, so other wordings can still be misread.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from fractions import Fraction

_CONTEXT = 80
"""Number of characters that are examined on either side of a number."""
_BOX_LIMIT = 2_000
_MOST_PLACES = 1_000

_MINUS = "\u02d7\u2010\u2011\u2012\u2013\u2212\u2796\ufe63\uff0d"
_PLUS = "\u2795\ufe62\uff0b"
_CHARACTERS = {
    **dict.fromkeys(_MINUS, "-"),
    **dict.fromkeys(_PLUS, "+"),
    **dict.fromkeys("\u00ad\u200b\u200e\u200f\u2060\ufeff", ""),  # invisible
    **dict.fromkeys("\u2044\u2215\uff0f", "/"),
    **dict.fromkeys("\u2217\uff0a", "*"),
    **dict.fromkeys("⇒⟹⟶", "→"),
    "…": "...",
    "∴": " ",
    "\uff0c": ",",
    "\uff0e": ".",
    "\uff05": "%",
    "\uff1d": "=",
}
_LOWERED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

_LATEX = {
    **dict.fromkeys(("left", "right", "big", "bigl", "bigr", "Big", "displaystyle", "!", "(", ")", "[", "]"), ""),
    **dict.fromkeys(("text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mbox", "bf", "rm"), ""),
    **dict.fromkeys((",", ";", ":", " ", "quad", "qquad", "therefore"), " "),
    **dict.fromkeys(("to", "rightarrow", "Rightarrow", "implies", "Longrightarrow"), "→"),
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("boxed", "fbox"), "\\boxed"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("approx", "sim", "simeq"), "≈"),
    **dict.fromkeys(("circ", "degree"), "°"),
    **dict.fromkeys(("end", "\\"), "\n"),
    **{sign: sign for sign in "%${}_#&"},
    "times": "×",
    "cdot": "·",
}
"""Replacements of LaTeX commands. Others are kept, and no number next to them is read."""
_COMMAND = re.compile(r"\\+([A-Za-z]+|.)")
_ARROWS = {"=>": "→", "==>": "→", "->": "→", "-->": "→", "<=": "≤", ">=": "≥", "!=": "≠", "==": "="}
_ARROW = re.compile(r"={1,2}>|-{1,2}>|<=|>=|!=|==")
_TAG = re.compile(r"<[|/]?[A-Za-z][\w|-]{0,40}/?>")
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
"""A calculator annotation of GSM8K, as in ``3*4=<<3*4=12>>12``."""
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]{1,400}?)(?<!\s)\1(?![\w*])")
_ABSOLUTE = re.compile(r"(?<![\w)|])\|([0-9][0-9,.]{0,40})\|(?![\w(|])")
_CURRENCY = re.compile(
    r"(?:\b(?:US|AU?|CA?|HK|NZ|NT|R|S))?\$"
    r"|\b(?:Rs\.?|USD|EUR|GBP|JPY|CNY|INR|CAD|AUD|CHF)[ ]?(?=[-+({\[$.0-9])"
)
_POWER_OF_UNIT = re.compile(
    r"([0-9])[ ]{0,2}\{?[ ]{0,2}(?:[mckd]?m|ft|in|yd|mi|s|units?|inches|feet|met(?:er|re)s?)\}?"
    r"\^?\{?[23²³]\}?(?![\w^])"
)

_PLAIN = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,300}|[0-9]{1,1000})(?:\.[0-9]{1,1000})?|\.[0-9]{1,1000})"
_EXPONENT = r"[-+]?[0-9]{1,3}"
_POWER = (
    rf"10[ ]?(?:(?:\^|\*\*)[ ]?(?:\{{[ ]?(?P<braced>{_EXPONENT})[ ]?\}}|\((?P<bracketed>{_EXPONENT})\)"
    rf"|(?P<bare>{_EXPONENT}))|(?P<raised>[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{{1,3}}))"
)
_NUMBER = re.compile(
    rf"(?P<sign>[-+])?(?:"
    rf"\\frac[ ]?\{{[ ]?(?P<above>[-+]?{_PLAIN})[ ]?\}}[ ]?\{{[ ]?(?P<below>{_PLAIN})[ ]?\}}"
    rf"|(?:(?P<factor>{_PLAIN})[ ]?[×·⋅*xX][ ]?)?{_POWER}"
    rf"|(?P<upper>{_PLAIN})[ ]?/[ ]?(?P<lower>{_PLAIN})"
    rf"|(?P<plain>{_PLAIN})(?:[eE](?P<exponent>{_EXPONENT}))?)"
)
_SINGLE_NUMBER = re.compile(
    r"[-+]?(?P<money>\$[-+]?)?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,300}|0|[1-9][0-9]{0,999})"
    r"(?:\.[0-9]{0,999}[1-9]|\.0{1,999}|(?(money)\.[0-9]{1,999}|(?!)))?%?"
)

_UNSPACED = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3"
"""Scripts without spaces between words."""
_UNSPACED_SCALES = frozenset("十百千万萬亿億兆零点點分半余餘多几幾折負负第만천백십억조")
"""Characters of these scripts that change the value of a number next to them, as numeric characters do too."""
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
_ANSWER = re.compile(r"\banswer\b(?:[ ]{0,3}(?:is\b|=)|\*{0,2}:)", re.IGNORECASE)
_ASIDE = re.compile(r"(?<=\s)\((?=[^()\n]*[A-Za-z]{3})[^()\n]{0,300}\)")
_CLAUSE_END = re.compile(r"[,;:.!?]\s+|\n")
_EQUALS = re.compile(r"[=≈→]")
_SHORT_UNIT = re.compile(rf"(?:{_UNIT}|[ /{{-]{{0,3}}[a-z][A-Za-z]{{0,30}}(?:[ /][a-z]{{1,30}}){{0,3}})?\W*\Z")
_DIGIT = re.compile(r"[0-9]")


def read_number(text: str) -> Fraction | None:
    """The value of the number that the text gives as its answer; None if that is unclear."""
    text = strip_markup(normalize(text))
    start = text.rfind("\\boxed{")
    if start >= 0:
        return read_box(text, start)
    marked = read_marked_line(text)
    if marked is not None:
        return marked
    line = answer_line(text)
    return read_last_number(text) if line is None else read_only_number(line)


def is_single_number(text: str) -> bool:
    """Whether a gold answer is one well-formed number and nothing else.

    ``007`` and ``3.10`` count as names, for instance of a part or a version, since ``7`` and ``3.1`` would be others.
    """
    return _SINGLE_NUMBER.fullmatch(normalize(text).strip()) is not None


def show(value: Fraction) -> str:
    """The canonical text of a value: decimal if that ends after at most 1,000 places, else a fraction."""
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
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


def normalize(text: str) -> str:
    """The text with ASCII digits, signs and spaces, and with ``$`` for every currency sign."""
    if not text.isascii():
        text = text.translate({ord(character): _ascii(character) for character in set(text)})
    return text.replace("\t", " ").replace("\r", "\n")


def _ascii(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return {"Zs": " ", "Sc": "$"}.get(unicodedata.category(character), character)


def strip_markup(text: str) -> str:
    """The text without LaTeX, tags, emphasis, currencies and powers of units, unless they change a number."""
    text = _COMMAND.sub(lambda found: _LATEX.get(found[1], "\\" + found[1]), text.replace("{,}", ","))
    text = _TAG.sub(" ", _CALCULATION.sub("", text).replace("</think>", "\n"))
    text = _ARROW.sub(lambda found: _ARROWS[found[0]], text.replace("~", " "))
    text = _EMPHASIS.sub(r"\2", text)
    text = _CURRENCY.sub("", re.sub(r"(?<=[0-9])\$", " ", text))
    text = _ABSOLUTE.sub(r"\1", re.sub(r"\^\{?°\}?", "°", text))
    return _POWER_OF_UNIT.sub(r"\1 ", text)


def read_box(text: str, start: int) -> Fraction | None:
    """The number in the box that begins at ``start``."""
    begin = start + len("\\boxed{")
    end, depth = begin, 1
    for end in range(begin, min(len(text), begin + _BOX_LIMIT)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            break
    inside = text[begin:end] if depth == 0 else text[begin : begin + _BOX_LIMIT]
    is_changed = (
        _CHANGED_BEFORE.search(text[max(0, start - _CONTEXT) : start]) is not None
        or _CHANGED_AFTER.match(text[end + 1 : end + 1 + _CONTEXT]) is not None
        or "!" in inside
    )
    return None if is_changed else read_only_number(inside)


def read_marked_line(text: str) -> Fraction | None:
    """The number after the last ``####`` whose line is a number with its unit, or an equation that ends in one.

    Other ``####`` lines are Markdown headings.
    """
    if "####" not in text:
        return None
    for line in reversed(text.split("\n")):
        _, mark, rest = line.rpartition("####")
        if not mark:
            continue
        rest = _ASIDE.sub("", rest)
        found = last_number(_EQUALS.split(rest)[-1])
        if (
            found is not None
            and not any(character.isalpha() for character in found.string[: found.start()])
            and _SHORT_UNIT.match(found.string, found.end())
        ):
            value = read_only_number(rest)
            if value is not None:
                return value
    return None


def answer_line(text: str) -> str | None:
    """The rest of the line after the last ``answer is``, or the next line; None if that has no digit."""
    end = max((match.end() for match in _ANSWER.finditer(text)), default=0)
    line = text[end:].lstrip(" :=*\n").partition("\n")[0]
    return line if end and _DIGIT.search(line) else None


def read_only_number(text: str) -> Fraction | None:
    """The number that all clauses with a number give; None if they give different ones."""
    clauses = (clause for clause in _CLAUSE_END.split(_ASIDE.sub("", text)) if _DIGIT.search(clause))
    values = {_read_clause(clause) for clause in clauses}
    return values.pop() if len(values) == 1 and not _has_other_numeral(text, 0) else None


def _read_clause(clause: str) -> Fraction | None:
    """The only number after the clause's last ``=``, or in the clause."""
    side = _EQUALS.split(clause)[-1]
    found, first = last_number(side), _DIGIT.search(side)
    return None if found is None or first is None or first.start() < found.start() else _value_if_free(found)


def read_last_number(text: str) -> Fraction | None:
    """The last number of the text; None if it is not free (see ``_is_free``)."""
    found = last_number(text)
    return None if found is None or _has_other_numeral(text, found.end()) else _value_if_free(found)


def last_number(text: str) -> re.Match[str] | None:
    return next(iter(deque(_NUMBER.finditer(text), maxlen=1)), None)


def _value_if_free(found: re.Match[str]) -> Fraction | None:
    return _value(found) if _is_free(found) else None


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


def _has_other_numeral(text: str, start: int) -> bool:
    """Whether a numeral such as ``½`` follows position ``start``; the ``²`` of ``cm²`` does not count."""
    if text.isascii():
        return False
    others = "".join(c for c in set(text) if unicodedata.category(c) in ("No", "Nl"))
    if not others:
        return False
    found = (match.start() for match in re.compile(f"[{re.escape(others)}]").finditer(text, start))
    return any(place == 0 or not (text[place - 1].isalpha() or _is_raised(text, place)) for place in found)


def _is_raised(text: str, place: int) -> bool:
    """Whether the character belongs to an exponent, as in ``10³``, which is read as part of the number."""
    return text[place] in "⁰¹²³⁴⁵⁶⁷⁸⁹" and text[place - 1] in "0123456789⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹"


def _value(found: re.Match[str]) -> Fraction | None:
    sign = -1 if found["sign"] == "-" else 1
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
